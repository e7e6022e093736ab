// The page's side of chatlab.lab.pictures.foreign_page: it opens the three pages in frames, and says which host this is.

function render({ model, el }) {
  const words = model.get("words");
  const box = frame(model, el, words.title);
  const kinds = make("select", {}, ...words.kinds.map(([value, textContent]) => make("option", { value, textContent })));
  kinds.addEventListener("change", () => model.send({ do: "cookie", kind: kinds.value }));
  const checks = make("input", { type: "checkbox" });
  checks.addEventListener("change", () => model.send({ do: "origins", checks: checks.checked }));
  const open = button(words.open, () => model.send({ do: "open", host: location.hostname }), "chatlab-main");
  const links = Object.entries(words.who).map(([who, textContent]) =>
    [who, make("a", { textContent, target: "_blank", rel: "noopener", className: "chatlab-link" })]);
  const tabs = make("span", {}, words.tabs, ...links.flatMap(([, link]) => [" ", link]));
  const header = make("code");
  const status = make("p", { role: "status", className: "chatlab-status" });
  const pages = make("div", { className: "chatlab-pages" });
  const received = fieldTable(words.heads, words.received);
  const tried = fieldTable(words.triedHeads, words.tried);
  const triedBox = make("div", {}, make("p", { textContent: words.tried }), tried.table);
  const notes = make("ul", {}, ...words.notes.map((textContent) => make("li", { textContent })));
  box.append(
    make("p", { textContent: words.help }),
    make("div", { className: "chatlab-line" }, make("label", {}, `${words.cookie} `, kinds), header),
    make("p", {}, make("label", {}, checks, ` ${words.origins}`)),
    make("div", { className: "chatlab-line" }, open, tabs),
    status, pages, received.table, triedBox,
    make("details", {}, make("summary", { textContent: words.conditions }), notes),
  );

  const cells = (row) => row.map((text, column) =>
    make(column ? "td" : "th", column ? {} : { scope: "row" }, make("span", { textContent: text })));
  let shown = 0;
  const draw = () => {
    const state = model.get("state");
    kinds.value = state.cookie;
    checks.checked = state.checks;
    say(header, state.set_cookie);
    open.disabled = state.trying;
    for (const [who, link] of links) link.href = state.urls[who];
    tabs.hidden = model.get("closed");
    say(status, state.status);
    if (state.trying && state.number !== shown) {
      shown = state.number;
      pages.replaceChildren(...Object.entries(state.urls).map(([who, src]) =>
        make("iframe", { src, title: words.who[who], tabIndex: -1 })));
    }
    received.table.hidden = !state.rows.length;
    received.body.replaceChildren(...state.rows.map((row) => {
      const line = make("tr", {}, ...cells([row.who, row.origin, row.cookie]));
      const tone = row.status === 101 ? "good" : "bad";
      line.append(make("td", { className: `chatlab-tone-${tone}`, textContent: words.answers[row.status] ?? row.status }));
      return line;
    }));
    triedBox.hidden = !state.tried.length;
    tried.body.replaceChildren(...state.tried.map((row) => make("tr", {}, ...cells(row))));
  };
  model.on("change:state", draw);
  model.on("change:closed", () => { tabs.hidden = true; pages.replaceChildren(); });
  draw();
}

export default { render };
