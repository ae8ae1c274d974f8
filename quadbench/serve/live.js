// Shows what the server sends of the part of the page that changes. Without it, the page renews itself as a whole.
"use strict";
const live = document.querySelector("[data-live]");
if (live) {
  const events = new EventSource(live.dataset.live);
  events.onopen = () => document.body.classList.remove("stale");
  events.onmessage = (event) => {
    if (!live.contains(document.activeElement)) live.innerHTML = event.data;
  };
  events.addEventListener("over", () => location.reload());
  events.onerror = () => {
    document.body.classList.add("stale");
    if (events.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 30000);
  };
}
