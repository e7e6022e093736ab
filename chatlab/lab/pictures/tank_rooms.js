// The page's side of chatlab.lab.pictures.tank_rooms: two rooms of tanks, a tap for each member, and the switch.

function render({ model, el }) {
  const words = model.get("words");
  const box = frame(model, el, words.title);
  const taps = words.members.map((name) => {
    const label = words.tap.replace("{name}", name);
    const speeds = words.taps.map(([tap, text]) => {
      const node = button(text, () => model.send({ do: "tap", name, tap }));
      node.setAttribute("aria-label", `${label}: ${text}`);
      return { tap, node };
    });
    return { name, speeds, group: make("div", { className: "chatlab-tap", role: "group", "aria-label": label },
      make("span", { textContent: label }), ...speeds.map(({ node }) => node)) };
  });
  const waits = make("input", { type: "checkbox" });
  waits.addEventListener("change", () => model.send({ do: "wait", waits: waits.checked }));
  const burst = button(words.burst, () => model.send({ do: "burst" }), "chatlab-main");
  const rooms = [room(words), room(words)];
  box.append(
    make("p", { textContent: words.help }),
    make("p", {}, make("label", {}, waits, ` ${words.wait}`)),
    make("div", { className: "chatlab-line" }, ...taps.map(({ group }) => group)),
    make("div", { className: "chatlab-line" },
      burst,
      button(words.again, () => model.send({ do: "start over" }))),
    make("div", { className: "chatlab-rooms" }, ...rooms.map(({ node }) => node)),
  );
  const draw = () => {
    const state = model.get("state");
    if (!state.rooms) return;
    waits.checked = state.waits;
    burst.disabled = state.busy;
    for (const { name, speeds } of taps) {
      for (const { tap, node } of speeds) node.setAttribute("aria-pressed", String(state.taps[name] === tap));
    }
    rooms.forEach((each, n) => each.draw(state.rooms[n]));
  };
  model.on("change:state", draw);
  draw();
}

const tank = (words) => {
  const water = make("div", { className: "chatlab-water" });
  const line = make("div", { className: "chatlab-limit", title: words.limit });
  line.style.bottom = `${100 * words.limitAt}%`;
  const glass = make("div", { className: "chatlab-tank", role: "meter", "aria-valuemin": 0, "aria-valuemax": words.max }, line, water);
  const [name, waiting, read, ended] = ["b", "small", "small", "small"].map((tag) => make(tag));
  const node = make("div", { className: "chatlab-tank-box" }, glass, name, waiting, read, ended);
  const draw = (state, hasLimit) => {
    line.hidden = !hasLimit;
    water.style.height = `${100 * state.fill}%`;
    glass.setAttribute("aria-valuenow", Math.min(state.waiting, words.max));
    glass.setAttribute("aria-valuetext", state.text);
    glass.setAttribute("aria-label", words.tank.replace("{name}", state.name));
    glass.classList.toggle("chatlab-ended", Boolean(state.ended));
    say(name, state.name);
    say(waiting, state.text);
    say(read, state.read);
    say(ended, state.ended && `✘ ${state.ended}`);
  };
  return { node, draw };
};

const room = (words) => {
  const [title, code, fate, figures] = ["h3", "pre", "p", "p"].map((tag) => make(tag));
  const status = make("span", { role: "status" });
  const seconds = make("span"); // counts, so it is not in the live region
  const state = make("p", { className: "chatlab-status" }, status, " ", seconds);
  const tanks = Array.from({ length: words.members.length + 1 }, () => tank(words));
  const node = make("section", {}, title, code,
    make("div", { className: "chatlab-tanks" }, ...tanks.map((each) => each.node)), figures, state, fate);
  const draw = (room) => {
    say(title, room.title);
    say(code, room.code);
    say(fate, room.fate);
    say(figures, room.figures);
    say(status, room.status);
    say(seconds, room.seconds);
    state.className = `chatlab-status chatlab-tone-${room.tone}`;
    tanks.forEach((each, n) => each.draw(room.tanks[n], room.hasLimit));
  };
  return { node, draw };
};

export default { render };
