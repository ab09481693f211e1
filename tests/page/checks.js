// What is wrong with the page in this window, a line each; written by hand after the rules of WCAG 2.2 that a program
// can judge: 1.3.1, 1.4.3, 1.4.10, 1.4.11, 2.4.1, 2.4.2, 2.4.3, 3.1.1, 4.1.2. Selenium wraps this in a function.
const wrong = [];
const visible = (e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest(".hidden, .skip");

// Names, landmarks, headings.
if (!document.documentElement.lang) wrong.push("no language");
if (!document.title) wrong.push("no title");
for (const name of ["header", "main", "footer", "nav"]) {
  if (document.querySelectorAll(name).length !== 1) wrong.push(`not one ${name}`);
}
if (document.querySelectorAll("[aria-live]").length !== 1) wrong.push("not one live region");
let level = 0;
for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
  const next = Number(heading.tagName[1]);
  if (next > level + 1) wrong.push(`heading ${heading.textContent} skips a level`);
  if (!heading.textContent.trim()) wrong.push("empty heading");
  level = next;
}
if (document.querySelectorAll("h1").length !== 1) wrong.push("not one h1");
const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
if (new Set(ids).size !== ids.length) wrong.push(`ids occur twice: ${ids}`);
for (const e of document.querySelectorAll("[aria-labelledby]")) {
  if (!document.getElementById(e.getAttribute("aria-labelledby"))) wrong.push("a label that is not there");
}
for (const e of document.querySelectorAll("section, [role=region]")) {
  if (!e.hasAttribute("aria-labelledby") && !e.hasAttribute("aria-label")) wrong.push(`no name: ${e.outerHTML.slice(0, 80)}`);
}
for (const e of document.querySelectorAll("th")) if (!e.scope) wrong.push(`no scope: ${e.textContent}`);
for (const e of document.querySelectorAll("table")) if (!e.caption) wrong.push("a table without a caption");
for (const e of document.querySelectorAll("svg")) {
  const isNamed = e.getAttribute("role") === "img" && e.querySelector(":scope > title");
  if (!isNamed && e.getAttribute("aria-hidden") !== "true") wrong.push("a drawing without a name");
}
for (const e of document.querySelectorAll("a, summary")) {
  if (!e.textContent.trim()) wrong.push("a link without a text");
}

// Nothing is wider than the window, but what scrolls by itself.
const width = document.documentElement.clientWidth;
if (document.scrollingElement.scrollWidth > width) {
  const wide = [...document.querySelectorAll("body *")].filter((e) => !e.closest(".scroller") && e.getBoundingClientRect().right > width + 1);
  wrong.push(`wider than ${width}: ${document.scrollingElement.scrollWidth}: ${wide.map((e) => e.outerHTML.slice(0, 60))}`);
}

// Contrast of every text, and of what is drawn.
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const parts = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const luminance = (colour) => {
  const [r, g, b] = parts(colour).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (a, b) => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
const behind = (e) => {
  for (let each = e; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if (parts(colour)[3] === 255) return colour;
  }
  return "white";
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let measured = 0;
while (texts.nextNode()) {
  const e = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !visible(e) || e.closest("title, script, noscript")) continue;
  const style = getComputedStyle(e), colour = e.closest("svg") ? style.fill : style.color;
  const found = ratio(colour, behind(e));
  measured += 1;
  if (found < 4.5) wrong.push(`contrast ${found.toFixed(2)}: ${texts.currentNode.data.slice(0, 40)}`);
}
if (measured < 40) wrong.push(`only ${measured} texts were measured`);
for (const e of document.querySelectorAll(".circle path, .circle .node, .bar .fill, .sample path")) {
  const style = getComputedStyle(e), drawn = style.stroke === "none" ? style.fill : style.stroke;
  const found = ratio(drawn, behind(e));
  if (found < 3) wrong.push(`contrast ${found.toFixed(2)} of ${e.getAttribute("class")}`);
}
return wrong;
