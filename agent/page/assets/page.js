// Brings the page up to date every few seconds, for as long as somebody can see it.
// It fetches the page itself and takes over what differs: focus, scrolling and what is unfolded stay as they are.
"use strict";
(() => {
  const EVERY_MS = 3000, ANSWER_MS = 10000;
  const root = document.documentElement, pulse = document.getElementById("pulse");
  let timer, heard = Date.now();

  function take(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
      old.replaceWith(document.importNode(fresh, true));
    } else if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
    } else {
      for (const name of [...old.getAttributeNames(), ...fresh.getAttributeNames()]) {
        const value = fresh.getAttribute(name);
        if (name === "open" || value === old.getAttribute(name)) continue;  // what is unfolded is the reader's choice
        if (value === null) old.removeAttribute(name);
        else old.setAttribute(name, value);
      }
      const before = [...old.childNodes], after = [...fresh.childNodes];
      after.forEach((node, i) => (before[i] ? take(before[i], node) : old.append(document.importNode(node, true))));
      before.slice(after.length).forEach((node) => node.remove());
    }
  }

  function show(fresh) {
    if (fresh.documentElement.dataset.version !== root.dataset.version) return location.reload();
    delete root.dataset.away;
    document.title = fresh.title;
    take(document.querySelector("main"), fresh.querySelector("main"));
    take(pulse, fresh.getElementById("pulse"));
    heard = Date.now();
  }

  function grey() {
    const ago = Math.round((Date.now() - heard) / 1000);
    pulse.textContent = `no answer for ${ago < 120 ? `${ago} s` : `${Math.floor(ago / 60)} min`}`;
    if ("away" in root.dataset) return;
    root.dataset.away = "";
    document.title = `No answer – ${document.title}`;
    const away = document.getElementById("away");
    away.textContent = `The agent stopped answering at ${new Date(heard).toLocaleTimeString()}. ` +
      `What stands here is what it said last. Is it running?${root.dataset.unit ? ` systemctl status ${root.dataset.unit}` : ""}`;
    away.hidden = false;
  }

  async function look() {
    clearTimeout(timer);
    if (document.hidden) return;
    try {
      const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
      const text = await answer.text();
      const fresh = new DOMParser().parseFromString(text, "text/html");
      if (!answer.ok || !fresh.getElementById("verdict")) throw new Error(answer.statusText);
      show(fresh);
    } catch {
      grey();
    }
    clearTimeout(timer);
    timer = setTimeout(look, EVERY_MS);
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) pulse.textContent = "paused";
    look();
  });
  timer = setTimeout(look, EVERY_MS);
})();
