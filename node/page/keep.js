// Keep and drop without a reload, with progress; what the form did without scripts is done here by the same calls.

const LOOK_MS = 1000;

export class Keeping {
  constructor(form, address) {
    Object.assign(this, { form, address, button: form.querySelector("button"), timer: 0 });
    this.progress = document.getElementById("kept");
    this.line = document.getElementById("kept-line");
    this.first = this.line.textContent;
    form.addEventListener("submit", (event) => { event.preventDefault(); this.press(); });
    document.addEventListener("visibilitychange", () => { if (!document.hidden && this.going) { this.look(); } });
    if (this.kept && Number(this.progress.value) < 100) { this.look(); }
  }

  get kept() { return this.form.dataset.kept === "yes"; }

  async press() {
    this.button.disabled = true;
    const drop = this.kept;
    const found = await this.call(drop ? "DELETE" : "POST");
    this.button.disabled = false;
    if (!found) { return; }
    this.form.dataset.kept = drop ? "no" : "yes";
    this.button.textContent = drop ? "Keep" : "Drop";
    if (drop) {
      this.going = false;
      clearTimeout(this.timer);
      this.progress.hidden = true;
      this.line.textContent = "Dropped: what is here stays until the room is needed.";
    } else { this.show(found); }
  }

  async look() {
    clearTimeout(this.timer);
    const found = await this.call("GET");
    if (found && this.kept) { this.show(found); }
  }

  show({ blocks, held_blocks: held, bytes, error }) {
    const part = Math.floor((held * 100) / Math.max(blocks, 1));
    this.progress.hidden = false;
    this.progress.value = part;
    this.going = held < blocks && !error;
    const size = `${(bytes / 1e6).toFixed(1)} MB`;
    if (error) { this.line.textContent = `${part} % is here, then it stopped: ${error}.`; }
    else if (this.going) { this.line.textContent = `${part} %, ${size} here`; }
    else { this.line.textContent = "Kept: plays with no network at all"; }
    if (this.going && !document.hidden) { this.timer = setTimeout(() => this.look(), LOOK_MS); }
  }

  async call(method) {
    try {
      const answer = await fetch(this.address, { method });
      const found = await answer.json();
      if (answer.ok) { return found; }
      this.line.textContent = `${found.detail[0].toUpperCase()}${found.detail.slice(1)}.`;
    } catch { this.line.textContent = "This box does not answer: is farcast still running?"; }
    return null;
  }
}
