// What the pictures share: elements, keys, and a frame's bytes in colours.

const make = (tag, properties = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
};

// A live region is read again whenever it is set, so set it only when the text differs.
const say = (node, text) => { if (node.textContent !== (text ?? "")) node.textContent = text ?? ""; };

// JupyterLab has commands on single letters, arrows, Enter and Shift+Enter: keys pressed in here are not for it.
const keepKeys = (node) => node.addEventListener("keydown", (event) => {
  const shortcut = event.ctrlKey || event.metaKey || event.altKey;
  if (!shortcut && event.key !== "Tab" && event.key !== "Escape") event.stopPropagation();
});

// The frame of a picture: a named group that is disabled as a whole once the picture has been closed.
const frame = (model, el, title) => {
  const notice = make("p", { className: "chatlab-notice", role: "status" });
  const box = make("fieldset", { className: "chatlab-picture" }, make("legend", { textContent: title }), notice);
  const close = () => {
    box.disabled = model.get("closed");
    say(notice, model.get("closed") ? model.get("words").closed : "");
  };
  model.on("change:closed", close);
  close();
  keepKeys(box);
  el.append(box);
  return box;
};

const button = (text, act, kind = "") => {
  const node = make("button", { type: "button", textContent: text, className: `chatlab-button ${kind}` });
  node.addEventListener("click", act);
  return node;
};

const byteGroups = (groups) => groups.map((group) =>
  make("span", { className: `chatlab-bytes chatlab-${group.colour}` },
    make("code", { textContent: group.hex }), make("small", { textContent: group.name })));

// The table of fields. `answer(row)` returns what stands in the last column, or null if there is none.
const fieldRows = (rows, answer) => rows.map((row) => {
  const line = make("tr", {},
    make("th", { scope: "row", className: `chatlab-${row.colour}`, textContent: row.name }),
    make("td", {}, make("code", { textContent: row.value })),
    make("td", {}, row.meaning, " ", make("small", { textContent: row.clause })));
  if (answer) line.append(answer(row));
  return line;
});

const fieldTable = (heads, name) => {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col", textContent: text })));
  const body = make("tbody");
  const table = make("table", { className: "chatlab-fields", "aria-label": name }, make("thead", {}, head), body);
  return { table, body };
};
