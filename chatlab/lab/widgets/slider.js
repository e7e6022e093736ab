// The page's side of chatlab.lab.widgets.slider: a native slider inside its label.

const MOVES = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End"];

function render({ model, el }) {
  const row = document.createElement("div");
  const label = document.createElement("label");
  const name = document.createElement("span");
  const slider = document.createElement("input");
  const figure = document.createElement("span");
  name.textContent = model.get("description");
  label.title = model.get("tooltip") ?? "";
  Object.assign(slider, { type: "range", min: 0, max: model.get("max"), step: model.get("step") });
  figure.setAttribute("aria-hidden", "true"); // a screen reader reads the value of the slider itself

  const say = () => {
    const word = (model.get("words") ?? [])[slider.value];
    figure.textContent = word ?? slider.value;
    if (word) slider.setAttribute("aria-valuetext", word);
  };
  const draw = () => {
    slider.value = model.get("value");
    say();
  };
  slider.addEventListener("input", say);
  slider.addEventListener("change", () => {
    model.set("value", Number(slider.value));
    model.save_changes();
  });
  // JupyterLab would move to another cell at these keys.
  slider.addEventListener("keydown", (event) => { if (MOVES.includes(event.key)) event.stopPropagation(); });
  model.on("change:value", draw);
  draw();

  row.style.cssText = label.style.cssText = "display:flex;align-items:center;gap:0.5em;line-height:2";
  name.style.minWidth = "11em";
  slider.style.width = "12em";
  figure.style.minWidth = "3em";
  label.append(name, slider);
  row.append(label, figure);
  el.append(row);
}

export default { render };
