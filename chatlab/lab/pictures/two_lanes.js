// The page's side of chatlab.lab.pictures.two_lanes: dots on two lanes, on a clock of their own that runs slower.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, CLIENT, SERVER] = [760, 250, 90, 670];
const OUT = [60, 180]; // the height of each lane's track to the server; the one back is below it
const BACK = 34;

const shape = (tag, properties, ...children) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

function render({ model, el }) {
  const words = model.get("words");
  const box = frame(model, el, words.title);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const text = make("input", { type: "text", maxLength: words.letters, spellcheck: false });
  const send = () => {
    model.send({ do: "send", text: text.value });
    text.value = "";
  };
  text.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.isComposing) send(); });
  const delay = make("input", { type: "range", min: 0, max: words.most, step: 50 });
  delay.setAttribute("aria-label", words.delay);
  const delayed = make("span", { "aria-hidden": "true" });
  const showDelay = () => {
    delayed.textContent = words.delayValue.replace("{delay}", delay.value);
    delay.setAttribute("aria-valuetext", delayed.textContent);
  };
  delay.addEventListener("input", showDelay);
  delay.addEventListener("change", () => model.send({ do: "delay", delay: Number(delay.value) }));
  const speed = make("select", {}, ...words.speeds.map(([value, textContent]) => make("option", { value, textContent })));
  const reduced = make("p", { textContent: words.reduced });
  const { stage, show } = lanes(words);
  const status = make("p", { role: "status", className: "chatlab-status" });
  const { table, body } = fieldTable(words.heads, words.table);
  table.classList.add("chatlab-times");
  const figures = make("details", {}, make("summary", { textContent: words.table }), table);
  box.append(
    make("p", { textContent: words.help }),
    make("div", { className: "chatlab-line" }, make("label", {}, `${words.text} `, text), button(words.send, send, "chatlab-main"),
      button(words.three, () => model.send({ do: "three" })), button(words.clear, () => model.send({ do: "clear" }))),
    make("div", { className: "chatlab-line" }, make("span", { textContent: words.delay }), delay, delayed,
      make("label", {}, `${words.speed} `, speed)),
    reduced, stage, status, figures,
  );

  // The clock of the picture, in ms since the kernel's trace began. It stands still while nothing moves.
  let clock = -Infinity;
  let before = null; // when it was last moved on
  let asked = 0;
  const ahead = () => {
    const { journeys, delay } = model.get("state");
    const legs = journeys.flatMap(({ left, reached, answered, back }) => [
      { from: left, to: reached ?? left + delay },
      { from: answered, to: back ?? answered + delay },
    ]);
    return legs.filter((leg) => leg.from !== null && leg.to > clock);
  };
  const tick = (now) => {
    asked = 0;
    const legs = still.matches || !el.isConnected ? [] : ahead();
    if (legs.length) {
      const passed = before === null ? 0 : (now - before) / Number(speed.value);
      clock = Math.max(clock + passed, Math.min(...legs.map((leg) => leg.from)));
      asked = requestAnimationFrame(tick);
    }
    before = legs.length ? now : null;
    show(model.get("state"), clock);
  };
  const wake = () => { if (!asked) asked = requestAnimationFrame(tick); };

  const settle = () => {
    stage.style.display = still.matches ? "none" : "";
    reduced.hidden = !still.matches;
    if (still.matches) figures.open = true;
    wake();
  };
  still.addEventListener("change", settle);

  const draw = () => {
    const state = model.get("state");
    if (!state.journeys) return;
    if (delay !== document.activeElement) delay.value = state.delay;
    showDelay();
    say(status, state.status);
    body.replaceChildren(...state.rows.map(([name, ...cells]) => make("tr", {},
      make("th", { scope: "row", textContent: name }), ...cells.map((textContent) => make("td", { textContent })))));
    wake();
  };
  model.on("change:state", draw);
  draw();
  settle();
  return () => { cancelAnimationFrame(asked); still.removeEventListener("change", settle); };
}

const lanes = (words) => {
  const stage = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chatlab-lanes", "aria-hidden": "true" });
  const waiting = words.lanes.map((lane, n) => {
    const tracks = [0, BACK].map((by) => shape("path", { d: `M${CLIENT} ${OUT[n] + by}H${SERVER}`, class: "chatlab-track" }));
    const name = shape("text", { x: WIDTH / 2, y: OUT[n] - 28, "text-anchor": "middle", "font-weight": "bold" }, lane);
    const ends = [[CLIENT, words.client, "end", -14], [SERVER, words.server, "start", 14]].map(([x, end, anchor, by]) =>
      shape("text", { x: x + by, y: OUT[n] + BACK / 2 + 5, "text-anchor": anchor }, end));
    const note = shape("text", { x: CLIENT, y: OUT[n] - 28, "text-anchor": "middle" });
    stage.append(...tracks, name, ...ends, note);
    return note;
  });
  const dots = shape("g", {});
  stage.append(dots);
  const dot = (lane, label, share, back) => {
    const x = CLIENT + (back ? 1 - share : share) * (SERVER - CLIENT);
    const y = OUT[lane] + (back ? BACK : 0);
    return [
      shape("circle", { cx: x, cy: y, r: 8, class: back ? "chatlab-back" : "chatlab-out" }),
      shape("text", { x, y: y + (back ? 24 : -12), "text-anchor": "middle" }, label),
    ];
  };
  const show = (state, clock) => {
    const moving = [];
    const counts = words.lanes.map(() => 0);
    for (const each of state.journeys) {
      const lane = words.lanes.indexOf(each.lane);
      const label = `${each.number} ${[...each.text].slice(0, 8).join("")}`;
      const reached = each.reached ?? (each.left ?? Infinity) + state.delay;
      const back = each.back ?? (each.answered ?? Infinity) + state.delay;
      const on = (from, to) => from !== null && clock >= from && clock < to;
      if (each.typed <= clock && clock < (each.left ?? Infinity)) counts[lane] += 1;
      if (on(each.left, reached)) moving.push(...dot(lane, label, (clock - each.left) / (reached - each.left), false));
      if (on(each.answered, back)) moving.push(...dot(lane, label, (clock - each.answered) / (back - each.answered), true));
    }
    dots.replaceChildren(...moving);
    waiting.forEach((note, n) => { note.textContent = counts[n] ? words.waiting.replace("{count}", counts[n]) : ""; });
  };
  return { stage, show };
};

export default { render };
