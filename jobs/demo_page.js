// What can be looked at without asking the server again: other layers, their opacity, the marks.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.gw-button");
  if (!button) return;
  const figure = button.closest(".gw-figure");
  figure.querySelector(".gw-layer").src = button.value;
  const buttons = [...figure.querySelectorAll(".gw-button")];
  for (const one of buttons) one.classList.toggle("gw-on", one === button);
  // Of what is not there, the maps are seen without the veil.
  figure.classList.toggle("gw-other", button !== buttons[0]);
});

document.addEventListener("input", (event) => {
  const root = document.documentElement;
  if (event.target.closest("#gw-opacity")) {
    root.style.setProperty("--gw-opacity", Number(event.target.value) / 100);
  } else if (event.target.closest("#gw-marks")) {
    root.classList.toggle("gw-bare", !event.target.checked);
  }
});
