// The view of VIPaint Choose Fill: all fills of a picture as a grid, or one large, to compare and to choose.
// It knows addresses of pictures and nothing of the editor; `onChoose` is told what is chosen.

import { text } from "./texts.js";

const FLICKER_MS = 450;
const LARGEST_ZOOM = 16;

/** `2; 1, 4` as sets of numbers, one for each picture. One list serves all. */
export function parseChosen(words, pictures) {
  const parts = String(words ?? "").split(";").map((part) => new Set((part.match(/\d+/g) ?? []).map(Number)));
  return Array.from({ length: pictures }, (_, index) => new Set(parts.length === 1 ? parts[0] : parts[index] ?? []));
}

/** The inverse; one list where all pictures have the same. */
export function writeChosen(sets) {
  const parts = sets.map((set) => [...set].sort((a, b) => a - b).join(", "));
  return parts.every((part) => part === parts[0]) ? parts[0] ?? "" : parts.join("; ");
}

function element(tag, className = "", properties = {}) {
  return Object.assign(document.createElement(tag), { className, ...properties });
}

export class Chooser {
  constructor({ onChoose }) {
    this.onChoose = onChoose;
    this.fills = [];
    this.originals = [];
    this.outlines = [];
    this.spreads = [];
    this.each = 1;
    this.chosen = [new Set()];
    this.picture = 0;
    this.current = 0;
    this.previous = 1;
    this.large = false;
    this.comparing = false;
    this.flickering = false;
    this.showsSpread = false;
    this.showsOutline = true;
    this.isStale = false;
    this.split = 0.5;
    this.aspect = 1;
    this.zoom = { factor: 1, left: 0, top: 0 };
    this.root = element("div", "vipaint-chooser", { tabIndex: 0 });
    this.bar = element("div", "bar");
    this.stage = element("div", "stage");
    this.foot = element("div", "foot");
    this.root.append(this.bar, this.stage, this.foot);
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.root.addEventListener("pointerdown", () => this.root.focus({ preventScroll: true }));
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.observer = new ResizeObserver(() => this.arrange());
    this.observer.observe(this.stage);
    this.draw();
  }

  /** Shows new fills: lists of addresses, those of the first picture first; `each` fills for each picture. */
  show({ fills, originals = [], outlines = [], spreads = [], each }) {
    const changed = fills.length !== this.fills.length || fills.some((url, index) => url !== this.fills[index]);
    Object.assign(this, { fills, originals, outlines, spreads, each: each || fills.length || 1 });
    this.isStale = false;
    if (changed) {
      this.picture = Math.min(this.picture, this.pictures - 1);
      this.current = Math.min(this.current, this.each - 1);
      this.previous = this.each > 1 ? (this.current + 1) % this.each : this.current;
      this.comparing = this.flickering = this.large = false;
      this.resetZoom();
    }
    if (fills.length) {
      const probe = new Image();
      probe.onload = () => {
        this.aspect = probe.naturalWidth / probe.naturalHeight;
        this.isSmall = probe.naturalWidth < 400;
        this.draw();
      };
      probe.src = fills[0];
    }
    this.draw();
  }

  /** Takes over what stands in the widget. */
  read(words) {
    this.words = words;
    this.chosen = parseChosen(words, this.pictures);
    this.draw();
  }

  get pictures() {
    return Math.max(1, Math.round(this.fills.length / this.each));
  }

  url(number) {
    return this.fills[this.picture * this.each + number];
  }

  choose(number, several = false) {
    if (!this.fills.length) return;
    const set = this.chosen[this.picture];
    const only = set.size === 1 && set.has(number + 1);
    if (several) {
      if (set.has(number + 1)) set.delete(number + 1);
      else set.add(number + 1);
    } else {
      set.clear();
      if (!only) set.add(number + 1);
    }
    this.words = writeChosen(this.chosen);
    this.isStale = true;
    this.onChoose(this.words);
    this.draw();
  }

  go(number) {
    const next = Math.max(0, Math.min(this.each - 1, number));
    if (next === this.current) return;
    this.previous = this.current;
    this.current = next;
    this.draw();
  }

  turn(step) {
    this.picture = (this.picture + step + this.pictures) % this.pictures;
    this.draw();
  }

  toggle(what, value = !this[what]) {
    this[what] = value;
    if (what === "comparing" && value) Object.assign(this, { large: true, flickering: false });
    if (what === "flickering" && value) Object.assign(this, { large: true, comparing: false });
    if (what === "large" && !value) Object.assign(this, { comparing: false, flickering: false });
    this.draw();
  }

  key(event) {
    const number = Number(event.key);
    const columns = this.large ? 1 : this.columns ?? 1;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const switches = { b: "comparing", f: "flickering", u: "showsSpread", o: "showsOutline", " ": "large" };
    if (event.ctrlKey || event.metaKey || event.altKey || !this.fills.length) return;
    if (event.key in moves) this.go(this.current + moves[event.key]);
    else if (number >= 1 && number <= 9) {
      if (number > this.each) return;
      this.go(number - 1);
    } else if (event.key === "Enter") this.choose(this.current, event.shiftKey);
    else if (event.key.toLowerCase() in switches) this.press(switches[event.key.toLowerCase()]);
    else if (event.key === "Escape" && (this.large || this.zoom.factor > 1)) {
      this.resetZoom();
      this.toggle("large", false);
    } else if (event.key === "+" || event.key === "-") this.magnify(event.key === "+" ? 1.25 : 0.8, 0.5, 0.5);
    else if (event.key === "0") this.resetZoom();
    else if (event.key === "PageUp" || event.key === "PageDown") this.turn(event.key === "PageUp" ? -1 : 1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  press(what) {
    if (what === "comparing" && !this.originals.length) return;
    if ((what === "flickering" || what === "showsSpread") && this.each < 2) return;
    this.toggle(what);
  }

  wheel(event) {
    // Without the focus the wheel is the canvas's.
    if (!this.root.contains(document.activeElement) || !this.fills.length) return;
    const cell = event.target.closest?.(".cell");
    if (!cell) return;
    event.preventDefault();
    event.stopPropagation();
    const box = cell.getBoundingClientRect();
    this.magnify(
      Math.exp(-event.deltaY / 400),
      (event.clientX - box.left) / box.width,
      (event.clientY - box.top) / box.height,
    );
  }

  /** Zooms all pictures alike, around a point given in parts of a cell. */
  magnify(by, x, y) {
    const before = this.zoom;
    const factor = Math.max(1, Math.min(LARGEST_ZOOM, before.factor * by));
    const keep = (place, at) => Math.min(0, Math.max(1 - factor, at - ((at - place) / before.factor) * factor));
    this.zoom = { factor, left: keep(before.left, x), top: keep(before.top, y) };
    this.applyZoom();
  }

  pan(dx, dy) {
    const { factor, left, top } = this.zoom;
    const keep = (place) => Math.min(0, Math.max(1 - factor, place));
    this.zoom = { factor, left: keep(left + dx), top: keep(top + dy) };
    this.applyZoom();
  }

  resetZoom() {
    this.zoom = { factor: 1, left: 0, top: 0 };
    this.applyZoom();
  }

  applyZoom() {
    const { factor, left, top } = this.zoom;
    this.root.style.setProperty("--zoom", factor);
    this.root.style.setProperty("--left", `${100 * left}%`);
    this.root.style.setProperty("--top", `${100 * top}%`);
  }

  fullScreen() {
    if (this.dialog) {
      this.dialog.close();
      return;
    }
    const home = this.root.parentNode;
    this.dialog = element("dialog", "vipaint-full");
    document.body.append(this.dialog);
    this.dialog.append(this.root);
    this.dialog.addEventListener("close", () => {
      home?.append(this.root);
      this.dialog.remove();
      this.dialog = null;
      this.draw();
    });
    // Escape goes back to the grid first.
    this.dialog.addEventListener("cancel", (event) => {
      if (this.large) event.preventDefault();
    });
    this.dialog.showModal();
    this.root.focus({ preventScroll: true });
    this.draw();
  }

  draw() {
    clearInterval(this.timer);
    this.drawBar();
    this.drawStage();
    this.drawFoot();
    this.arrange();
  }

  drawBar() {
    const button = (label, title, press, on = false, disabled = false) => {
      const made = element("button", on ? "on" : "", { textContent: label, title, disabled, type: "button" });
      made.addEventListener("click", (event) => {
        event.stopPropagation();
        press();
      });
      return made;
    };
    const none = !this.fills.length;
    const parts = [
      button("▦", `${text("grid")} (Esc)`, () => this.toggle("large", false), !this.large, none),
      button("◧", `${text("compare")} (B)`, () => this.press("comparing"), this.comparing, none || !this.originals.length),
      button("⇄", `${text("flicker")} (F)`, () => this.press("flickering"), this.flickering, none || this.each < 2),
      button("◍", `${text("spread")} (U)`, () => this.press("showsSpread"), this.showsSpread, none || this.each < 2),
      button("▢", `${text("outline")} (O)`, () => this.press("showsOutline"), this.showsOutline, none || !this.outlines.length),
    ];
    if (this.pictures > 1) {
      const where = text("picture", { number: this.picture + 1, count: this.pictures });
      parts.push(button("‹", where, () => this.turn(-1)), element("span", "", { textContent: where }));
      parts.push(button("›", where, () => this.turn(1)));
    }
    parts.push(element("span", "space"));
    if (this.large) {
      const isChosen = this.chosen[this.picture]?.has(this.current + 1);
      parts.push(button(`✓ ${this.current + 1}`, `${text("choose")} (Enter)`, () => this.choose(this.current), isChosen));
    }
    const full = button("", text("full"), () => this.fullScreen(), Boolean(this.dialog), none);
    // The editor's own icon: fonts without the character for it are common.
    full.append(element("i", "pi pi-expand"));
    parts.push(full);
    this.bar.replaceChildren(...parts);
  }

  drawStage() {
    if (!this.fills.length) {
      this.stage.replaceChildren(element("div", "empty", { textContent: text("waiting") }));
      return;
    }
    const numbers = this.large ? [this.current] : Array.from({ length: this.each }, (_, index) => index);
    const cells = element("div", "cells");
    cells.append(...numbers.map((number) => this.cell(number)));
    this.stage.replaceChildren(cells);
  }

  cell(number) {
    const cell = element("div", "cell");
    cell.dataset.fill = number + 1;
    const chosen = this.chosen[this.picture]?.has(number + 1);
    cell.classList.toggle("current", number === this.current && !this.large);
    cell.classList.toggle("chosen", Boolean(chosen));
    const layers = element("div", "layers");
    const picture = (url, className) => {
      const image = element("img", `${className}${this.isSmall ? " sharp" : ""}`, { src: url, draggable: false });
      layers.append(image);
      return image;
    };
    const fill = picture(this.url(number), "fill");
    const spread = this.spreads[this.picture];
    const outline = this.outlines[this.picture] ?? this.outlines[0];
    if (this.showsSpread && spread) picture(spread, "spread").style.opacity = 0.75;
    if (this.showsOutline && outline) picture(outline, "outline");
    cell.append(layers);
    if (this.comparing && this.originals.length) this.addSlider(cell, layers);
    if (this.flickering) this.flicker(fill, number);
    this.badge = element("span", "badge", { textContent: `${number + 1}${chosen ? " ✓" : ""}` });
    cell.append(this.badge);
    this.listen(cell, number);
    return cell;
  }

  addSlider(cell, layers) {
    const before = element("img", `before${this.isSmall ? " sharp" : ""}`, { draggable: false });
    before.src = this.originals[this.picture] ?? this.originals[0];
    layers.append(before);
    const divider = element("div", "divider");
    const left = element("span", "side", { textContent: text("before") });
    const right = element("span", "side", { textContent: text("after") });
    left.style.left = right.style.right = "4px";
    const place = () => {
      // The line is where the pointer is, whatever the zoom; the picture is cut in its own measure.
      const at = (this.split - this.zoom.left) / this.zoom.factor;
      before.style.clipPath = `inset(0 ${100 * (1 - Math.max(0, Math.min(1, at)))}% 0 0)`;
      divider.style.left = `${100 * this.split}%`;
    };
    const move = (event) => {
      const box = cell.getBoundingClientRect();
      this.split = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
      place();
    };
    divider.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      divider.setPointerCapture(event.pointerId);
      divider.addEventListener("pointermove", move);
      divider.addEventListener("pointerup", () => divider.removeEventListener("pointermove", move), { once: true });
    });
    cell.append(divider, left, right);
    place();
  }

  /** Between this fill and the one that was looked at before. */
  flicker(image, number) {
    const other = this.previous === number ? (number + 1) % this.each : this.previous;
    let shows = number;
    this.timer = setInterval(() => {
      shows = shows === number ? other : number;
      image.src = this.url(shows);
      if (this.badge) this.badge.textContent = `${shows + 1}${this.chosen[this.picture]?.has(shows + 1) ? " ✓" : ""}`;
    }, FLICKER_MS);
  }

  listen(cell, number) {
    let start = null;
    cell.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      start = { x: event.clientX, y: event.clientY, moved: false };
      cell.setPointerCapture(event.pointerId);
    });
    cell.addEventListener("pointermove", (event) => {
      if (!start) return;
      const box = cell.getBoundingClientRect();
      const dx = event.clientX - start.x;
      const dy = event.clientY - start.y;
      if (!start.moved && Math.hypot(dx, dy) < 4) return;
      this.pan(dx / box.width, dy / box.height);
      start = { x: event.clientX, y: event.clientY, moved: true };
    });
    cell.addEventListener("pointerup", (event) => {
      const moved = start?.moved;
      start = null;
      if (moved || event.button !== 0) return;
      if (event.shiftKey || event.ctrlKey || event.metaKey) this.choose(number, true);
      else if (!this.large) {
        this.go(number);
        this.toggle("large", true);
      }
    });
    cell.addEventListener("dblclick", () => this.choose(number));
  }

  drawFoot() {
    const set = this.chosen[this.picture] ?? new Set();
    const numbers = [...set].sort((a, b) => a - b).join(", ");
    const words = this.fills.length ? (numbers ? text("chosen", { numbers }) : text("nothing")) : "";
    const parts = [element("span", "state", { textContent: words })];
    if (this.isStale) parts.push(element("span", "stale", { textContent: text("stale") }));
    parts.push(element("span", "hint", { textContent: this.fills.length ? text("hint") : "", title: text("hint") }));
    this.foot.replaceChildren(...parts);
  }

  /** Cells as large as the stage allows, all of them in sight where they stay large enough to be told apart. */
  arrange() {
    const cells = this.stage.querySelector(".cells");
    if (!cells) return;
    const width = this.stage.clientWidth - 8;
    const height = this.stage.clientHeight - 8;
    const count = this.large ? 1 : this.each;
    let best = { columns: 1, side: 0 };
    for (let columns = 1; columns <= count; columns++) {
      const rows = Math.ceil(count / columns);
      const side = Math.min((width - 4 * columns) / columns, ((height - 4 * rows) / rows) * this.aspect);
      if (side > best.side) best = { columns, side };
    }
    const side = Math.max(64, Math.floor(best.side));
    this.columns = best.side < 64 ? Math.max(1, Math.floor(width / 68)) : best.columns;
    cells.style.gridTemplateColumns = `repeat(${this.columns}, ${side}px)`;
    for (const cell of cells.children) cell.style.height = `${Math.round(side / this.aspect)}px`;
  }

  remove() {
    clearInterval(this.timer);
    this.observer.disconnect();
    this.dialog?.close();
    this.root.remove();
  }
}
