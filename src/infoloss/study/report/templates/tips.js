const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);
// A title shows under a mouse only: its words are shown to fingers and keys too, and not twice.
document.querySelectorAll("svg.drawing g > title").forEach((title) => {
  title.parentNode.dataset.tip = title.textContent;
  title.remove();
});
const hide = () => { tip.hidden = true; };
const show = (mark, x, y) => {
  tip.textContent = mark.dataset.tip;
  tip.hidden = false;
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(x - tip.offsetWidth / 2, room))}px`;
  tip.style.top = `${y - tip.offsetHeight > 20 ? y - tip.offsetHeight - 14 : y + 22}px`;
};
for (const kind of ["pointerover", "pointermove", "pointerdown"]) {
  document.addEventListener(kind, (event) => {
    const mark = event.target.closest && event.target.closest("[data-tip]");
    if (mark) show(mark, event.clientX, event.clientY);
    else hide();
  });
}
document.addEventListener("scroll", hide, { passive: true, capture: true });
document.querySelectorAll("svg.drawing").forEach((drawing) => {
  const marks = [...drawing.querySelectorAll("[data-tip]")];
  let place = -1;
  if (!marks.length) return;
  drawing.setAttribute("tabindex", "0");
  drawing.addEventListener("blur", hide);
  drawing.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    place = (Math.max(place, step < 0 ? 0 : -1) + step + marks.length) % marks.length;
    const box = marks[place].getBoundingClientRect();
    show(marks[place], box.left + box.width / 2, box.top);
  });
});
