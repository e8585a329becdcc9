// A table wider than its box says so: on a phone nothing else shows that there are more columns.
document.querySelectorAll(".scroll").forEach((box) => {
  const look = () => box.classList.toggle("more", box.scrollWidth > box.clientWidth + 1);
  const sizes = new ResizeObserver(look);
  [box, ...box.children].forEach((element) => sizes.observe(element));
});
