"use strict";
// Redeems an invitation: the Service Worker makes this browser's key and enrols it with the token.
const form = document.getElementById("join"), link = document.getElementById("link");
const forget = document.getElementById("forget"), worker = navigator.serviceWorker;
const say = text => { document.getElementById("line").textContent = text; };
const able = worker && Uint8Array.fromHex;

function show() {
  const enrolled = localStorage.getItem("enrolled");
  forget.hidden = !enrolled;
  if (enrolled) say("This browser is enrolled: what you watch here is counted.");
  else if (!able) say("This browser cannot be enrolled: it lacks what signing needs, or this page did not come over https.");
}

form.addEventListener("submit", async event => {
  event.preventDefault();
  const token = /[?&#]token=([A-Za-z0-9_-]{16,64})/.exec(link.value)?.[1];
  if (!able) { show(); return; }
  if (!token) { say("This is no invitation link: it must have a token in it. Ask for a new one."); return; }
  say("Enrolling");
  const { installing, waiting, active } = await worker.register("/web/sw.js?account");
  worker.addEventListener("message", ({ data }) => {
    if (data.error) { say(`Not enrolled: ${data.error}`); return; }
    localStorage.setItem("enrolled", "1");
    link.value = "";
    show();
  }, { once: true });
  worker.startMessages();
  (installing ?? waiting ?? active).postMessage({ token });
});
forget.addEventListener("click", () => {
  indexedDB.deleteDatabase("farcast");
  localStorage.removeItem("enrolled");
  say("Forgotten. Nothing is counted any more.");
  forget.hidden = true;
});
if (location.hash.includes("token=")) {
  link.value = location.href;
  history.replaceState(null, "", location.pathname);
}
show();
