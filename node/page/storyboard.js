// Small pictures over the seek bar: WebVTT whose cues name a part of a sheet by #xywh (Media Fragments 1.0).
import { clock } from "./controls.js";

const CUE = /^(?:(\d+):)?(\d\d):(\d\d(?:\.\d+)?)\s+-->\s+(?:(\d+):)?(\d\d):(\d\d(?:\.\d+)?)/;
const PART = /^(\S+)#xywh=(?:pixel:)?(\d+),(\d+),(\d+),(\d+)$/;
const CUES_LIMIT = 20000;

function seconds(hours, minutes, rest) { return Number(hours ?? 0) * 3600 + Number(minutes) * 60 + Number(rest); }

/** Read the cues of a storyboard, in order; what is no cue of a sheet is left out. */
export function parse(text) {
  const cues = [];
  let times = null;
  for (const line of text.split(/\r?\n/)) {
    const cue = CUE.exec(line);
    const part = times && PART.exec(line.trim());
    if (cue) { times = [seconds(cue[1], cue[2], cue[3]), seconds(cue[4], cue[5], cue[6])]; }
    else if (part && cues.length < CUES_LIMIT) {
      const [x, y, width, height] = part.slice(2).map(Number);
      cues.push({ from: times[0], until: times[1], file: part[1], x, y, width, height });
      times = null;
    }
  }
  return cues;
}

export class Storyboard {
  constructor(controls, address) {
    Object.assign(this, { controls, address, cues: null });
    for (const id of ["preview", "frame", "moment"]) { this[id] = document.getElementById(id); }
    const { seek } = controls;
    seek.addEventListener("pointermove", (event) => this.point(event.offsetX / seek.clientWidth));
    seek.addEventListener("pointerleave", () => this.hide());
    seek.addEventListener("keydown", () => requestAnimationFrame(() => this.point(seek.value / controls.duration)));
    seek.addEventListener("blur", () => this.hide());
  }

  hide() { this.preview.hidden = true; }

  async point(share) {
    const at = Math.min(Math.max(share, 0), 1) * this.controls.duration;
    this.wanted = at;
    this.cues ??= this.load();
    const cues = await this.cues;
    if (this.wanted !== at) { return; } // the pointer has moved on
    const cue = cues.find((one) => at < one.until) ?? cues.at(-1);
    if (cue) { this.show(cue, at); }
  }

  async load() {
    try {
      const answer = await fetch(this.address);
      return answer.ok ? parse(await answer.text()) : [];
    } catch { return []; }
  }

  show(cue, at) {
    const sheet = new URL(cue.file, new URL(this.address, location.href));
    if (sheet.origin !== location.origin) { return; }
    Object.assign(this.frame.style, {
      width: `${cue.width}px`, height: `${cue.height}px`,
      backgroundImage: `url("${sheet.href}")`, backgroundPosition: `-${cue.x}px -${cue.y}px`,
    });
    this.moment.textContent = clock(at);
    this.preview.hidden = false;
    const room = this.controls.seek.clientWidth - this.preview.offsetWidth;
    const left = (at / this.controls.duration) * this.controls.seek.clientWidth - this.preview.offsetWidth / 2;
    this.preview.style.left = `${Math.min(Math.max(left, 0), Math.max(room, 0))}px`;
  }
}
