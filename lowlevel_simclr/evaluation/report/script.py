"""The JavaScript of a report. It shows the values of curves, zooms into them, and shows the images of the map.

Pointing at a curve shows its value, dragging zooms in, and a double-click shows the whole run again. With the keyboard,
left and right move from value to value, and + and - zoom. Without JavaScript, the page still shows all curves.
"""

from __future__ import annotations

SCRIPT = """
"use strict";
for (const figure of document.querySelectorAll(".chart")) {
  const data = JSON.parse(figure.dataset.chart), svg = figure.querySelector("svg");
  const panel = figure.querySelector(".panel"), line = svg.querySelector(".grid");
  const readout = figure.querySelector(".readout");
  const ticks = [...svg.querySelectorAll(":scope > text.x")].slice(0, -1), unit = readout.textContent;
  const whole = data.x, steps = data.curves[0][1];
  let span = whole, down = null, at = 0;
  const number = value => Math.abs(value) >= 1000 ? Math.round(value) : +value.toPrecision(4);
  const toStep = event => {
    const box = line.getBoundingClientRect();  // as wide as the panel, whose own box grows by zooming
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    return span[0] + share * (span[1] - span[0]);
  };
  const show = wanted => {
    const words = data.curves.map(([name, xs, ys]) => {
      let best = -1;
      xs.forEach((x, i) => {
        if (ys[i] !== null && (best < 0 || Math.abs(x - wanted) < Math.abs(xs[best] - wanted))) best = i;
      });
      return best < 0 ? "" : name + " at step " + number(xs[best]) + ": " + number(ys[best]);
    });
    readout.textContent = words.filter(Boolean).join("; ");
  };
  const zoom = (low, high) => {
    span = [Math.max(whole[0], low), Math.min(whole[1], high)];
    if (span[1] - span[0] < (whole[1] - whole[0]) / 500) span = whole;
    const scale = 1000 / (whole[1] - whole[0]);
    panel.setAttribute("viewBox", [(span[0] - whole[0]) * scale, 0, (span[1] - span[0]) * scale, 1000].join(" "));
    ticks.forEach((tick, i) => {
      const apart = (span[1] - span[0]) / (ticks.length - 1), value = span[0] + apart * i;
      tick.textContent = apart < 10 ? number(value) : Math.round(value);
    });
  };
  svg.addEventListener("pointerdown", event => { down = toStep(event); });
  svg.addEventListener("pointermove", event => show(toStep(event)));
  svg.addEventListener("pointerup", event => {
    const up = toStep(event);
    if (down !== null && Math.abs(up - down) > (span[1] - span[0]) / 50) zoom(Math.min(up, down), Math.max(up, down));
    down = null;
  });
  svg.addEventListener("pointerleave", () => { readout.textContent = unit; down = null; });
  svg.addEventListener("dblclick", () => zoom(...whole));
  svg.addEventListener("keydown", event => {
    const move = {ArrowLeft: -1, ArrowRight: 1}[event.key], width = span[1] - span[0];
    if (move) {
      at = Math.min(steps.length - 1, Math.max(0, at + move));
      show(steps[at]);
    } else if (event.key === "+") zoom(steps[at] - width / 4, steps[at] + width / 4);
    else if (event.key === "-") zoom(steps[at] - width, steps[at] + width);
    else return;
    event.preventDefault();
  });
}
for (const map of document.querySelectorAll(".map")) {
  const tip = map.querySelector(".tip"), thumb = map.querySelector(".thumb"), name = map.querySelector(".name");
  const names = JSON.parse(map.dataset.names);
  map.addEventListener("pointerover", event => {
    const mark = event.target.closest("[data-i]");
    tip.style.display = mark ? "block" : "none";
    if (!mark) return;
    const place = Number(mark.dataset.i), box = map.getBoundingClientRect(), there = mark.getBoundingClientRect();
    thumb.style.backgroundPosition = -32 * (place % 32) + "px " + -32 * Math.floor(place / 32) + "px";
    name.textContent = names[mark.dataset.c] || "";
    tip.style.left = Math.min(there.left - box.left + 12, box.width - 110) + "px";
    tip.style.top = there.top - box.top + 12 + "px";
  });
  map.addEventListener("pointerleave", () => { tip.style.display = "none"; });
}
"""
