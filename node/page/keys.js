// One-key commands. They can be switched off, for speech input may type letters (WCAG 2.2, 2.1.4).

const OFF = "farcast-keys-off";
const TYPING = "input:not([type=range]):not([type=checkbox]), textarea, select, [contenteditable]";
const PRESSED = "button, a, summary, input[type=checkbox]";

export class Keys {
  constructor(controls, toggle) {
    this.toggle = toggle;
    toggle.checked = localStorage.getItem(OFF) === null;
    toggle.addEventListener("change", () => {
      if (toggle.checked) { localStorage.removeItem(OFF); } else { localStorage.setItem(OFF, "1"); }
    });
    this.acts = {
      " ": () => controls.toggle(),
      k: () => controls.toggle(),
      arrowleft: () => controls.jumpBy(-5),
      arrowright: () => controls.jumpBy(5),
      j: () => controls.jumpBy(-10),
      l: () => controls.jumpBy(10),
      arrowup: () => controls.louder(0.05),
      arrowdown: () => controls.louder(-0.05),
      m: () => controls.toggleSound(),
      c: () => controls.toggleSubtitles(),
      f: () => controls.toggleFull(),
    };
    document.addEventListener("keydown", (event) => this.press(event, controls));
  }

  press(event, controls) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) { return; }
    const { target } = event;
    const inside = controls.stage.contains(target);
    if (target.matches?.(TYPING) || (!this.toggle.checked && !inside)) { return; }
    const key = event.key.toLowerCase();
    if (key === " " && target.matches?.(PRESSED)) { return; } // it presses what has the focus
    if (key === "arrowup" || key === "arrowdown") {
      if (!inside && target !== document.body) { return; } // elsewhere they scroll
      if (target === controls.volume) { return; }
    }
    if (target === controls.volume && key.startsWith("arrow")) { return; }
    const act = this.acts[key];
    if (act) { event.preventDefault(); act(); }
  }
}
