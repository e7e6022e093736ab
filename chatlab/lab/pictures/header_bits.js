// The page's side of chatlab.lab.pictures.header_bits.

const TONES = { good: "✔ ", bad: "✘ ", quiet: "… " };
const COLOURS = ["fin", "rsv", "rsv", "rsv", "opcode", "opcode", "opcode", "opcode", "mask", ...Array(7).fill("length")];

function render({ model, el }) {
  const words = model.get("words");
  const box = frame(model, el, words.title);
  const bits = words.bits.map((name, bit) => {
    const node = button("0", () => model.send({ do: "flip", bit }), `chatlab-bit chatlab-${COLOURS[bit]}`);
    node.setAttribute("aria-label", name);
    node.addEventListener("keydown", (event) => step(event, bit));
    return node;
  });
  const step = (event, bit) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    bits[bit + by]?.focus();
  };
  const names = words.spans.map(([name, span]) => {
    const node = make("span", { textContent: name, "aria-hidden": "true" }); // each bit says its own name
    node.style.gridColumn = `span ${span}`;
    return node;
  });
  const text = make("input", { type: "text", maxLength: 200, value: model.get("state").text, spellcheck: false });
  const send = button(words.send, () => model.send({ do: "send" }), "chatlab-main");
  const right = button(words.right, () => model.send({ do: "right" }));
  text.addEventListener("input", () => model.send({ do: "type", text: text.value }));
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.isComposing) model.send({ do: "send" });
  });
  const status = make("p", { role: "status", className: "chatlab-status" });
  const hex = make("div", { role: "group", "aria-label": words.bytes });
  const { table, body } = fieldTable(words.heads, words.title);
  box.append(
    make("p", { className: "chatlab-help", textContent: words.help }),
    make("div", { className: "chatlab-bits" }, ...bits, ...names),
    make("div", { className: "chatlab-line" }, make("label", {}, `${words.text} `, text), send, right),
    status, hex, table,
  );

  const draw = () => {
    const state = model.get("state");
    bits.forEach((node, bit) => {
      const set = state.bits[bit] === "1";
      say(node, set ? "1" : "0");
      node.setAttribute("aria-pressed", String(set));
    });
    if (text !== document.activeElement) text.value = state.text;
    say(status, state.status);
    box.setAttribute("aria-busy", String(state.sending));
    hex.replaceChildren(...byteGroups(state.groups));
    body.replaceChildren(...fieldRows(state.rows, (row) => {
      const remarks = state.remarks.filter((remark) => remark.where === row.key);
      const tone = remarks.at(-1)?.tone ?? "none";
      return make("td", { className: `chatlab-tone-${tone}` }, remarks.map((each) => TONES[each.tone] + each.text).join(" "));
    }));
    for (const row of body.rows) row.classList.toggle("chatlab-lit", row.lastChild.textContent !== "");
  };
  model.on("change:state", draw);
  draw();
}

export default { render };
