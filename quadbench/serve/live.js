// Shows what the server sends of the part of the page that changes. Without it, the page renews itself as a whole.
"use strict";
const live = document.querySelector("[data-live]");
if (live) {
  let events, latest;
  const show = () => {
    if (latest === undefined || live.contains(document.activeElement)) return;
    live.innerHTML = latest;
    latest = undefined;
  };
  const follow = () => {
    events?.close();
    if (document.hidden) return; // a browser has six connections to a host, for all its tabs
    events = new EventSource(live.dataset.live);
    events.onopen = () => {
      document.querySelector(".fresh").textContent = "live";
      document.body.classList.remove("stale");
    };
    events.onmessage = (event) => {
      latest = event.data;
      show();
    };
    events.addEventListener("over", () => location.reload());
    events.onerror = () => {
      document.body.classList.add("stale");
      if (events.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 30000);
    };
  };
  live.addEventListener("focusout", () => setTimeout(show)); // by then the focus is where it goes
  document.addEventListener("visibilitychange", follow);
  follow();
}
