// The player page: one video, what moves it, and what is told of it. Without scripts the browser's own player stays.
import { Engine } from "./engine.js";
import { Controls } from "./controls.js";
import { Keeping } from "./keep.js";
import { Keys } from "./keys.js";
import { Live } from "./live.js";
import { Place } from "./place.js";
import { Storyboard } from "./storyboard.js";

const stage = document.getElementById("stage");
const video = document.getElementById("video");
const line = document.getElementById("line");
const fault = document.getElementById("fault");
const restart = document.getElementById("restart");
const { title, api, position, duration, storyboard } = stage.dataset;

// randomUUID wants a secure context, which the loopback address is
const sid = crypto.randomUUID();
const engine = new Engine(video, { ...stage.dataset, sid, start: Number(position) / 1000 });
const controls = new Controls(stage, video, engine, Number(duration) / 1000);
const place = new Place(video, `${api}/bookmarks/${title}`);
const live = new Live(video, `${api}/live/${title}?sid=${sid}`);
new Keys(controls, document.getElementById("keys"));
new Keeping(document.getElementById("keep"), `${api}/titles/${title}/keep`);
if (storyboard) { new Storyboard(controls, storyboard); }

engine.onFault = (sentence, again) => {
  fault.replaceChildren();
  if (!sentence) { return; }
  const button = document.createElement("button");
  button.textContent = "Try again";
  button.addEventListener("click", () => { button.disabled = true; again(); });
  fault.append(sentence, button);
};
engine.onTracks = () => controls.offer();
live.onTrouble = (sentence) => engine.waits(sentence);

const words = { playing: "Playing", waiting: "Waiting for the next part", pause: "Paused", ended: "The end" };
for (const [event, text] of Object.entries(words)) {
  video.addEventListener(event, () => { line.textContent = text; });
}
video.addEventListener("playing", () => { fault.replaceChildren(); live.begin(); });
video.addEventListener("waiting", () => live.begin());
for (const event of ["pause", "ended"]) { video.addEventListener(event, () => { live.rest(); place.note(); }); }

if (Number(position) > 0) {
  restart.addEventListener("submit", (event) => {
    event.preventDefault();
    restart.hidden = true;
    controls.jumpTo(0);
    video.play();
  });
}
