"use strict";

function sortBy(table, head, column) {
  const now = head.getAttribute("aria-sort");
  const words = column === 0;
  const opposite = now === "ascending" ? "descending" : "ascending";
  const order = now ? opposite : words ? "ascending" : "descending";
  const sign = order === "ascending" ? 1 : -1;
  const key = row => row.cells[column].dataset.value;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (words ? x.localeCompare(y) : x - y);
  });
  table.tBodies[0].append(...rows);
  for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows].at(-1).cells;
  [...heads].forEach((head, column) =>
    head.querySelector("button")?.addEventListener("click", () => sortBy(table, head, column)));
}

for (const input of document.querySelectorAll("input.filter")) {
  const table = input.nextElementSibling.querySelector("table");
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    for (const row of table.tBodies[0].rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    }
  });
}

const views = document.getElementById("views");
if (views) {
  const articles = [...views.children], charts = document.getElementById("charts");
  const select = document.querySelector(".picker select");
  let shown = 0;

  const show = index => {
    shown = index;
    articles.forEach((article, k) => { article.hidden = k !== index; });
    select.selectedIndex = index;
    for (const part of charts?.querySelectorAll("[data-class]") ?? []) {
      const own = Number(part.dataset.class) === index;
      if (!part.classList.contains("curve")) part.hidden = !own;
      else if (part.classList.toggle("on", own)) part.parentNode.append(part);
    }
    articles[index].querySelector(".slot")?.append(charts);
  };
  const follow = () => {
    const index = articles.findIndex(article => `#${article.id}` === location.hash);
    if (index >= 0) {
      show(index);
      articles[index].scrollIntoView();
    }
  };
  const choose = index => {
    show(index);
    history.replaceState(null, "", `#${articles[index].id}`);
  };

  select.addEventListener("change", () => choose(select.selectedIndex));
  for (const button of document.querySelectorAll(".picker button")) {
    const step = Number(button.dataset.step);
    button.addEventListener("click", () =>
      choose((shown + step + articles.length) % articles.length));
  }
  addEventListener("hashchange", follow);
  show(Number(views.dataset.shown));
  follow();
}

const zoom = document.getElementById("zoom");
document.addEventListener("click", event => {
  if (event.target.closest("dialog")) zoom.close();
  else if (event.target.matches("figure img")) {
    zoom.querySelector("img")?.remove();
    const picture = event.target.cloneNode();
    zoom.prepend(picture);
    zoom.querySelector("p").textContent = picture.alt;
    zoom.showModal();
  }
});
