// The page's side of chatlab.lab.pictures.frame_editor.

function render({ model, el }) {
  const words = model.get("words");
  const box = frame(model, el, words.title);
  const text = make("input", { type: "text", maxLength: 100, value: words.initial, spellcheck: false });
  let state = model.get("state");
  const submit = () => { if (!state.held && !state.busy) model.send({ do: "send", text: text.value }); };
  const send = button(words.send, submit, "chatlab-main");
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.isComposing) submit();
  });
  const answers = make("input", { type: "checkbox" });
  answers.addEventListener("change", () => model.send({ do: "answers", on: answers.checked }));
  const connect = button(words.connect, () => model.send({ do: "connect" }));
  const release = () => { if (!state.busy && state.valid) model.send({ do: "let-go" }); };
  const letGo = button(words.letGo, () => release(), "chatlab-main");
  const undo = button(words.undo, () => model.send({ do: "undo" }));
  const status = make("p", { role: "status", className: "chatlab-status" });
  const heldTitle = make("legend");
  const parts = make("div", { className: "chatlab-parts" });
  const { table, body } = fieldTable(words.heads, words.readAs);
  const held = make("fieldset", { className: "chatlab-picture chatlab-held" }, heldTitle, parts,
    make("div", { className: "chatlab-line" }, letGo, undo), table);
  const logs = Object.fromEntries(["client", "server"].map((side) =>
    [side, make("div", { role: "log", className: "chatlab-log", "aria-label": words[side], tabIndex: 0 })]));
  box.append(
    make("div", { className: "chatlab-line" }, make("label", {}, `${words.text} `, text), send,
      make("label", {}, answers, ` ${words.answers}`), connect),
    status, held,
    make("div", { className: "chatlab-sides" }, ...Object.entries(logs).map(([side, log]) =>
      make("div", {}, make("strong", { textContent: words[side] }), log))),
  );

  let inputs = [];
  let shown = -1; // the number of the held frame whose parts are in the page
  const drawParts = (state) => {
    if (state.holds !== shown) {
      shown = state.holds;
      inputs = state.parts.map((part, index) => {
        const input = make("input", { type: "text", spellcheck: false, autocomplete: "off", maxLength: 6000,
          size: Math.min(60, Math.max(3, part.hex.length)), value: part.hex });
        const mistake = make("small", { id: `chatlab-mistake-${Date.now()}-${shown}-${index}` });
        input.setAttribute("aria-describedby", mistake.id);
        input.addEventListener("input", () => model.send({ do: "edit", part: index, hex: input.value }));
        input.addEventListener("keydown", (event) => { if (event.key === "Enter") release(); });
        return { input, mistake };
      });
      parts.replaceChildren(...inputs.map(({ input, mistake }, index) =>
        make("div", { className: `chatlab-part chatlab-${state.parts[index].colour}` },
          make("label", {}, make("span", { textContent: state.parts[index].name }), input), mistake)));
    }
    state.parts.forEach((part, index) => {
      const { input, mistake } = inputs[index];
      if (input !== document.activeElement && input.value !== part.hex) input.value = part.hex;
      input.setAttribute("aria-invalid", String(part.mistake !== ""));
      say(mistake, part.mistake);
    });
  };
  const drawLog = (log, lines) => {
    const items = lines.length ? lines : [words.nothing];
    const kept = [...log.children].map((each) => each.textContent);
    if (kept.join("\n") === items.join("\n")) return;
    const goesOn = kept.every((line, index) => line === items[index]); // then only the new lines are read out
    if (!goesOn) log.replaceChildren();
    log.append(...items.slice(log.children.length).map((line) => make("div", { textContent: line })));
    log.scrollTop = log.scrollHeight;
  };
  const draw = () => {
    state = model.get("state");
    const hadFocus = box.contains(document.activeElement);
    const isNew = state.held && state.holds !== shown;
    const wasHeld = !held.hidden;
    held.hidden = !state.held;
    heldTitle.textContent = words.held[state.holder];
    // Not `disabled`, which would take the focus from a button that has just been pressed.
    send.setAttribute("aria-disabled", String(state.held || state.busy));
    letGo.setAttribute("aria-disabled", String(state.busy || !state.valid));
    connect.setAttribute("aria-disabled", String(state.busy));
    answers.checked = state.answers;
    if (state.held) drawParts(state);
    body.replaceChildren(...fieldRows(state.rows));
    drawLog(logs.client, state.client);
    drawLog(logs.server, state.server);
    say(status, state.status);
    if (hadFocus && isNew) inputs[0]?.input.focus();
    else if (hadFocus && wasHeld && !state.held) text.focus(); // the focused control is gone
  };
  model.on("change:state", draw);
  draw();
}

export default { render };
