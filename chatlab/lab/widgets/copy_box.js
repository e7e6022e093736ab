// The page's side of chatlab.lab.widgets.chooser.CopyBox: a text to read, and a button that copies it.

function render({ model, el }) {
  const label = document.createElement("label");
  const name = document.createElement("b");
  const text = document.createElement("textarea");
  const button = document.createElement("button");
  const status = document.createElement("span");
  const words = model.get("words");
  name.textContent = model.get("description");
  text.readOnly = true;
  text.rows = 9;
  text.style.cssText = "display:block;width:100%;box-sizing:border-box;font:inherit;color:inherit;background:transparent";
  button.type = "button";
  button.className = "jupyter-button";
  button.textContent = words.copy;
  status.setAttribute("role", "status");
  status.style.marginLeft = "0.5em";

  const draw = () => {
    text.value = model.get("text");
    button.disabled = !text.value;
    status.textContent = "";
  };
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.value);
      status.textContent = words.copied;
    } catch { // no permission, or a page without HTTPS
      text.select();
      status.textContent = document.execCommand("copy") ? words.copied : words.selected;
    }
  });
  // JupyterLab would take these keys from the text.
  text.addEventListener("keydown", (event) => event.stopPropagation());
  model.on("change:text", draw);
  draw();

  label.append(name, text);
  el.append(label, button, status);
}

export default { render };
