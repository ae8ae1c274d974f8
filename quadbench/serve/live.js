// Shows the part of the page that changes, every two seconds. Without it, the page renews itself as a whole.
"use strict";
const live = document.querySelector("[data-live]");
if (live) {
  let latest;
  const show = () => {
    if (latest === undefined || live.contains(document.activeElement)) return;
    live.innerHTML = latest;
    latest = undefined;
  };
  const ask = async () => {
    if (document.hidden) return;
    let isStale = true;
    try {
      const answer = await fetch(live.dataset.live);
      if (answer.status === 204 || answer.status === 401) location.reload();
      if (answer.status === 200) {
        isStale = false;
        const text = await answer.text();
        if (text !== live.dataset.shown) latest = live.dataset.shown = text;
        document.querySelector(".fresh").textContent = "live";
        show();
      }
    } catch {
      // the server does not answer
    }
    document.body.classList.toggle("stale", isStale);
  };
  live.addEventListener("focusout", () => setTimeout(show)); // by then the focus is where it goes
  document.addEventListener("visibilitychange", ask);
  setInterval(ask, 2000);
  ask();
}
