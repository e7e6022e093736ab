// The page's side of chatlab.lab.pictures.handshake_form.

const MARKS = { good: "✔", bad: "✘" };
const PAUSE = 400; // milliseconds without a key before the request is sent
let forms = 0; // each label, remark and rule needs an id of its own

function render({ model, el }) {
  const words = model.get("words");
  const box = frame(model, el, words.title);
  const prefix = `chatlab-form-${Date.now()}-${forms++}`;
  const inputs = {};
  const remarks = {};
  let timer;

  const submit = (again) => {
    clearTimeout(timer);
    const lines = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value]));
    model.send({ do: "change", lines, again });
  };
  const grid = make("div", { className: "chatlab-form" });
  for (const [index, line] of words.lines.entries()) {
    const id = `${prefix}-${index}`;
    const input = make("input", { type: "text", id, maxLength: 500, spellcheck: false, autocomplete: "off",
      "aria-describedby": `${id}-rule ${id}-remark` });
    const remark = make("div", { id: `${id}-remark`, className: "chatlab-remark" });
    const rule = make("div", { id: `${id}-rule`, className: "chatlab-rule" }, line.rule, " ",
      make("small", { textContent: line.clause }));
    input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(submit, PAUSE, false); });
    input.addEventListener("change", () => submit(false));
    input.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.isComposing) submit(true); });
    inputs[line.name] = input;
    remarks[line.name] = remark;
    grid.append(make("label", { htmlFor: id, textContent: line.label }), make("div", {}, input, rule, remark));
  }
  const servers = make("div", { className: "chatlab-servers" });
  const status = make("p", { role: "status", className: "chatlab-status" });
  const reset = button(words.reset, () => { clearTimeout(timer); model.send({ do: "reset" }); });
  box.append(make("p", { className: "chatlab-help", textContent: words.help }), servers, status, grid,
    make("div", { className: "chatlab-line" }, reset));

  let resets = -1;
  const draw = () => {
    const state = model.get("state");
    const forced = state.resets !== resets; // after a reset also the field that is being typed in
    resets = state.resets;
    servers.replaceChildren(...state.answers.map((each) =>
      make("div", { className: `chatlab-server chatlab-tone-${each.tone}` },
        make("span", { textContent: each.name }), make("strong", { textContent: `${MARKS[each.tone]} ${each.headline}` }))));
    say(status, state.status);
    status.classList.toggle("chatlab-unseen", state.repeated); // the answers above show the same
    for (const [name, input] of Object.entries(inputs)) {
      if (forced || input !== document.activeElement) input.value = state.lines[name];
      const said = state.remarks[name];
      input.setAttribute("aria-invalid", String(said.some((each) => each.tone === "bad")));
      remarks[name].replaceChildren(...said.map((each) =>
        make("div", { className: `chatlab-tone-${each.tone}`, textContent: `${MARKS[each.tone]} ${each.server}: ${each.text}` })));
    }
  };
  model.on("change:state", draw);
  draw();
}

export default { render };
