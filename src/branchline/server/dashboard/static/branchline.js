// What htmx does not do: follow a deployment's log, ask before acting, tell when the server is away.
"use strict";

(() => {
  // made once: making one for each line takes longer than all else that a line needs
  const CLOCK = new Intl.DateTimeFormat([], { timeStyle: "medium", hour12: false });
  const DATE_AND_CLOCK = new Intl.DateTimeFormat([], { dateStyle: "short", timeStyle: "medium" });
  // terminal colours and cursor movements, which build tools write whether anybody wants them or not
  const ESCAPES = /\u001b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-_])/g;

  const trouble = (shown) => { document.getElementById("trouble").hidden = !shown; };
  document.addEventListener("htmx:error", () => trouble(true));
  document.addEventListener("htmx:after:request", (event) => trouble(event.detail.ctx.response.status >= 500));

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.confirm && !window.confirm(form.dataset.confirm)) {
      event.preventDefault();
      return;
    }
    if ("once" in form.dataset) {
      // after the browser has read the form, or a disabled button would not send it
      setTimeout(() => form.querySelectorAll("button").forEach((button) => { button.disabled = true; }));
    }
  });
  // a page that comes back from the browser's memory has its buttons as they were left
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  const log = document.getElementById("log");
  if (log) follow(log);

  function follow(log) {
    const state = document.getElementById("log-state");
    const toEnd = document.getElementById("to-end");
    const mostLines = Number(log.dataset.mostLines);
    const waiting = [];
    let stage = null;
    let atEnd = true;
    let drawing = false;

    const source = new EventSource(log.dataset.events);
    source.onopen = () => { state.textContent = "Following live."; };
    source.onmessage = (message) => {
      const event = JSON.parse(message.data);
      if (event.line) {
        waiting.push(event.line);
      } else if (event.stage) {
        htmx.trigger("#story", "changed");
      } else if (event.end) {
        source.close();
        state.textContent = `The deployment has ended: ${event.end.state}.`;
        htmx.trigger("#story", "changed");
      }
      if (waiting.length && !drawing) {
        drawing = true;
        requestAnimationFrame(draw);
      }
    };
    source.onerror = () => {
      const gone = source.readyState === EventSource.CLOSED;
      state.textContent = gone ? "The log cannot be followed. Load the page anew." : "Connection lost. Trying again…";
    };

    log.addEventListener("scroll", () => {
      atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
      toEnd.hidden = atEnd;
    }, { passive: true });
    toEnd.addEventListener("click", () => { log.scrollTop = log.scrollHeight; log.focus(); });

    function draw() {
      drawing = false;
      const part = document.createDocumentFragment();
      // more than is ever shown need not be drawn at all
      for (const line of waiting.splice(0).slice(-mostLines)) {
        if (line.stage !== stage) {
          stage = line.stage;
          part.append(element("div", "stage-head", stage));
        }
        const row = element("div", "line", "");
        const at = new Date(line.at);
        const time = element("time", "", CLOCK.format(at));
        time.dateTime = line.at;
        time.title = DATE_AND_CLOCK.format(at);
        row.append(time, element("span", "text", line.text.replace(ESCAPES, "")));
        part.append(row);
      }
      log.append(part);
      if (log.childElementCount > mostLines) {
        document.getElementById("log-cut").hidden = false;
        while (log.childElementCount > mostLines) log.firstElementChild.remove();
      }
      if (atEnd) log.scrollTop = log.scrollHeight;
    }
  }

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.textContent = text;
    return made;
  }
})();
