document.querySelectorAll("table.sortable thead tr:last-child th").forEach((head) => {
  const value = (row) => {
    const key = row.cells[head.cellIndex].dataset.key;
    return key === undefined ? null : isNaN(key) ? key : Number(key);
  };
  const sort = () => {
    const upward = head.getAttribute("aria-sort") !== "ascending";
    head.parentNode.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", upward ? "ascending" : "descending");
    for (const body of head.closest("table").tBodies) {
      const rows = [...body.rows].filter((row) => row.cells.length > 1);
      rows.sort((a, b) => {
        const x = value(a), y = value(b);
        if (x === null || y === null) return (x === null) - (y === null);
        return (x > y ? 1 : x < y ? -1 : 0) * (upward ? 1 : -1);
      });
      rows.forEach((row) => body.append(row));
    }
  };
  const button = document.createElement("button");
  button.append(...head.childNodes);
  button.title = "sort";
  button.addEventListener("click", sort);
  head.append(button);
});
