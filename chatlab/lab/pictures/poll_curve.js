// The page's side of chatlab.lab.pictures.poll_curve: a handle on the curve, moved by a slider or with the pointer.

const SVG = "http://www.w3.org/2000/svg";

function render({ model, el }) {
  const words = model.get("words");
  const box = frame(model, el, words.title);
  const slider = make("input", { type: "range", min: 0, step: 1, className: "chatlab-interval" });
  slider.setAttribute("aria-label", words.slider);
  const computed = make("output", { className: "chatlab-computed" });
  const measure = () => model.send({ do: "measure", at: Number(slider.value) });
  const chart = make("div", { className: "chatlab-curve", "aria-hidden": "true" }); // the table has the same figures
  const status = make("p", { role: "status", className: "chatlab-status" });
  const { table, body } = fieldTable(words.heads, words.table);
  box.append(
    make("p", { textContent: words.help }), chart,
    make("div", { className: "chatlab-line" }, slider, button(words.measure, measure, "chatlab-main")),
    computed, status, table,
  );
  const handle = document.createElementNS(SVG, "circle");
  for (const [name, value] of Object.entries({ r: 9, class: "chatlab-handle" })) handle.setAttribute(name, value);

  const move = () => {
    const step = model.get("state").steps[slider.value];
    handle.setAttribute("cx", step.x);
    handle.setAttribute("cy", step.y);
    slider.setAttribute("aria-valuetext", step.text);
    say(computed, step.text);
  };
  slider.addEventListener("input", move);
  slider.addEventListener("keydown", (event) => { if (event.key === "Enter") measure(); });
  slider.addEventListener("pointerup", () => setTimeout(measure)); // after the last "input"

  // The handle itself can be dragged as well: the nearest step of the curve takes it.
  const nearest = (event) => {
    const svg = chart.querySelector("svg");
    const { left, width } = svg.getBoundingClientRect();
    const x = ((event.clientX - left) / width) * words.size[0];
    const distances = model.get("state").steps.map((step) => Math.abs(step.x - x));
    slider.value = distances.indexOf(Math.min(...distances));
    move();
  };
  let dragged = false;
  chart.addEventListener("pointerdown", (event) => {
    if (box.disabled) return;
    dragged = true;
    chart.setPointerCapture(event.pointerId);
    nearest(event);
    event.preventDefault();
  });
  chart.addEventListener("pointermove", (event) => { if (dragged) nearest(event); });
  chart.addEventListener("pointerup", () => { if (dragged) measure(); dragged = false; });

  let drawn = "";
  const draw = () => {
    const state = model.get("state");
    if (!state.svg) return;
    if (state.svg !== drawn) {
      drawn = state.svg;
      chart.innerHTML = state.svg; // made by the module, of numbers and escaped names
      chart.querySelector("svg").append(handle);
    }
    if (slider.max !== String(state.steps.length - 1)) {
      slider.max = state.steps.length - 1;
      slider.value = state.at;
    }
    move();
    say(status, state.status);
    box.setAttribute("aria-busy", String(state.measuring));
    body.replaceChildren(...state.rows.map(([name, ...cells]) => make("tr", {},
      make("th", { scope: "row", textContent: name }), ...cells.map((textContent) => make("td", { textContent })))));
  };
  model.on("change:state", draw);
  draw();
}

export default { render };
