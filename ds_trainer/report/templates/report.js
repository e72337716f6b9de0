"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const byId = (id) => document.getElementById(id);
const isDark = matchMedia("(prefers-color-scheme: dark)");

/** An element with text in it; names of any script keep to themselves. */
function element(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}
const named = (text) => element("bdi", text);

// Tables: a click on a heading sorts by its column, another one the other way round.
for (const table of document.querySelectorAll(".sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = element("button", ...heading.childNodes);
    button.type = "button";
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const isUp = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      const isNumber = heading.classList.contains("number");
      const value = (row) => isNumber ? Number(row.cells[column].textContent) : row.cells[column].textContent;
      const compare = (a, b) => isNumber ? value(a) - value(b) : value(a).localeCompare(value(b), undefined, { numeric: true });
      const rows = [...table.tBodies[0].rows].sort((a, b) => isUp ? compare(a, b) : compare(b, a));
      table.tBodies[0].append(...rows);
    });
  });
}
byId("filter")?.addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLocaleLowerCase();
  for (const row of byId("classes").tBodies[0].rows) {
    row.hidden = !row.cells[0].textContent.toLocaleLowerCase().includes(wanted);
  }
});

/** Canvas of the size that it is shown at, in the screen's own pixels. */
function sharp(canvas) {
  const side = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, side, side);
  return [context, side];
}

function exploreConfusions() {
  const { true: trues, predicted } = data.answers;
  const size = data.classes.length;
  const cells = new Map(); // true * size + predicted -> places of the examples
  const support = new Array(size).fill(0);
  trues.forEach((true_, place) => {
    const key = true_ * size + predicted[place];
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(place);
    support[true_] += 1;
  });
  const canvas = byId("matrix"), select = byId("class");
  let chosen = null;

  function draw() {
    const [context, side] = sharp(canvas);
    const step = side / size, width = Math.max(step, 2 * devicePixelRatio);
    if (chosen !== null) {
      context.fillStyle = colour("pale");
      context.fillRect(0, chosen * step, side, step);
      context.fillRect(chosen * step, 0, step, side);
    }
    for (const [key, places] of cells) {
      const row = Math.floor(key / size), column = key % size;
      context.globalAlpha = 0.15 + 0.85 * Math.sqrt(places.length / support[row]);
      context.fillStyle = colour(row === column ? "blue" : "orange");
      context.fillRect(column * step, row * step, width, width);
    }
    context.globalAlpha = 1;
  }

  /** The filled cell that is nearest to a place on the screen, within the width of a finger tip. */
  function cellAt(event) {
    const box = canvas.getBoundingClientRect(), step = box.width / size;
    const x = (event.clientX - box.left) / step - 0.5, y = (event.clientY - box.top) / step - 0.5;
    let best = null, least = Math.max(0.75, 12 / step);
    for (const key of cells.keys()) {
      const distance = Math.hypot(key % size - x, Math.floor(key / size) - y);
      if (distance < least) [best, least] = [key, distance];
    }
    return best;
  }

  function tell(key) {
    const [row, column] = [Math.floor(key / size), key % size], places = cells.get(key);
    const examples = places.slice(0, 20).map((place) => data.answers.name[place]).join(", ");
    byId("cell").replaceChildren(
      named(data.classes[row]), " taken for ", named(data.classes[column]),
      `: ${places.length} of ${support[row]} (${examples}${places.length > 20 ? ", …" : ""})`);
  }

  function list(title, pairs) {
    const rows = pairs.sort((a, b) => b[1] - a[1]).map(([other, count, of]) => element("li", named(data.classes[other]), `: ${count} of ${of}`));
    return [element("h3", title), rows.length ? element("ul", ...rows) : element("p", "none")];
  }

  function choose(number) {
    chosen = number;
    select.value = number;
    const takenFor = [], takenForIt = [];
    for (const [key, places] of cells) {
      const [row, column] = [Math.floor(key / size), key % size];
      if (row === number) takenFor.push([column, places.length, support[row]]);
      else if (column === number) takenForIt.push([row, places.length, support[row]]);
    }
    byId("about").replaceChildren(...list("is taken for", takenFor), ...list("is the answer to", takenForIt));
    draw();
  }

  data.classes.forEach((name, number) => {
    const option = element("option", name);
    option.value = number;
    select.append(option);
  });
  select.addEventListener("change", () => choose(Number(select.value)));
  canvas.addEventListener("pointermove", (event) => {
    const key = cellAt(event);
    if (key !== null) tell(key);
  });
  canvas.addEventListener("click", (event) => {
    const key = cellAt(event);
    if (key === null) return;
    choose(Math.floor(key / size));
    tell(key);
  });
  new ResizeObserver(draw).observe(canvas);
  isDark.addEventListener("change", draw);
  const wrong = [...cells].filter(([key]) => Math.floor(key / size) !== key % size).sort((a, b) => b[1].length - a[1].length);
  const first = wrong.length ? wrong[0][0] : cells.keys().next().value;
  choose(Math.floor(first / size));
  tell(first);
}

function playSkeletons() {
  const FRAMES_PER_SECOND = 25;
  const partColours = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"];
  const { true: trues, predicted, confidence, name, group } = data.answers;
  const cards = data.drawn.map((skeleton, index) => {
    const place = data.worst[index], canvas = element("canvas");
    const caption = element("figcaption", named(data.classes[trues[place]]), " taken for ",
      named(data.classes[predicted[place]]), ` (${confidence[place] ?? "NaN"})`,
      element("small", named(data.groups[group[place]])), element("small", name[place]));
    caption.title = name[place];
    byId("cards").append(element("figure", canvas, caption));
    return { canvas, skeleton, frame: -1 };
  });

  function draw(card, number) {
    card.frame = number;
    const [context, side] = sharp(card.canvas);
    const points = card.skeleton.frames[number], scale = side * 0.9 / 1000, edge = side * 0.05;
    const at = (point) => [edge + points[2 * point] * scale, edge + points[2 * point + 1] * scale];
    context.strokeStyle = colour("grey");
    context.lineWidth = devicePixelRatio;
    context.beginPath();
    for (const [from, to] of card.skeleton.bones) {
      if (points[2 * from] < 0 || points[2 * to] < 0) continue;
      context.moveTo(...at(from));
      context.lineTo(...at(to));
    }
    context.stroke();
    card.skeleton.parts.forEach((part, point) => {
      if (points[2 * point] < 0) return;
      context.fillStyle = partColours[part % partColours.length];
      context.beginPath();
      context.arc(...at(point), 1.6 * devicePixelRatio, 0, 7);
      context.fill();
    });
  }

  let isOn = false, began = null;
  const drawable = cards.filter((card) => card.skeleton.frames.length);
  const redraw = () => drawable.forEach((card) => draw(card, card.frame < 0 ? card.skeleton.frames.length >> 1 : card.frame));
  function next(now) {
    if (!isOn) return;
    began ??= now;
    for (const card of drawable) {
      const number = Math.floor((now - began) * FRAMES_PER_SECOND / 1000) % card.skeleton.frames.length;
      if (number !== card.frame) draw(card, number);
    }
    requestAnimationFrame(next);
  }
  function play(wanted) {
    [isOn, began] = [wanted, null];
    byId("play").textContent = isOn ? "Pause" : "Play";
    if (isOn) requestAnimationFrame(next);
  }
  byId("play").addEventListener("click", () => play(!isOn));
  isDark.addEventListener("change", redraw);
  redraw();
  play(!matchMedia("(prefers-reduced-motion: reduce)").matches);
}

if (data.answers) exploreConfusions();
if (data.drawn?.length) playSkeletons();
