// Find what is wrong with a page as a browser shows it: overflow, contrast, headings, tables and wrapped dates.
() => {
  const faults = [];
  const name = (node) => `${node.tagName.toLowerCase()} "${node.textContent.trim().slice(0, 40)}"`;
  const shown = (node) => node.getClientRects().length > 0 && !node.closest(".hidden");

  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) faults.push(`overflow: the page has ${root.scrollWidth} px`);
  for (const node of document.body.querySelectorAll("*")) {
    if (!shown(node)) continue;
    if (node.getBoundingClientRect().right > root.clientWidth + 0.5) faults.push(`overflow: ${name(node)}`);
    if (node.matches(".scroll") && node.scrollWidth > node.clientWidth) faults.push(`scrolls: ${node.ariaLabel}`);
  }

  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      const [, , , alpha = 1] = channels(colour);
      if (alpha === 1) return colour;
      if (alpha > 0) faults.push(`contrast: ${name(each)} has a background that is partly transparent`);
    }
    return "rgb(255, 255, 255)";
  };
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.data.trim() || !shown(parent) || parent.closest("svg")) continue;
    texts += 1;
    const found = ratio(getComputedStyle(parent).color, ground(parent));
    if (found < 4.5) faults.push(`contrast: ${found.toFixed(2)} of ${name(parent)}`);
    for (const date of node.data.matchAll(/\d{4}-\d{2}-\d{2}(\.\d+)?/g)) {
      const range = document.createRange();
      range.setStart(node, date.index);
      range.setEnd(node, date.index + date[0].length);
      if (new Set([...range.getClientRects()].map((r) => Math.round(r.top))).size > 1) faults.push(`wrapped date: ${date[0]} in ${name(parent)}`);
    }
  }
  for (const node of document.querySelectorAll("svg polyline, svg line, svg circle, svg rect")) {
    const style = getComputedStyle(node);
    const colour = style.stroke === "none" ? style.fill : style.stroke;
    if (ratio(colour, ground(node)) < 3) faults.push(`contrast: ${node.tagName} of a chart`);
  }

  let level = 0;
  for (const node of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const now = Number(node.tagName[1]);
    if (now > level + 1 || (now === 1 && level > 0)) faults.push(`heading: ${name(node)} after level ${level}`);
    level = now;
  }
  if (document.querySelectorAll("h1").length !== 1) faults.push("heading: there is not one h1");
  for (const node of document.querySelectorAll("svg")) if (!node.querySelector("title")?.textContent) faults.push("chart without a title");
  for (const table of document.querySelectorAll("table")) {
    const heads = [...table.querySelectorAll("thead th[scope=col]")];
    if (!heads.length || heads.some((head) => !head.textContent.trim())) faults.push(`table ${table.id}: a column has no header`);
    for (const row of table.querySelectorAll("tbody tr")) {
      if (!row.querySelector("th[scope=row]")) faults.push(`table ${table.id}: a row has no header`);
      if (row.cells.length !== heads.length) faults.push(`table ${table.id}: a row has ${row.cells.length} cells`);
    }
    if (!table.closest("[aria-label]") && !table.caption) faults.push(`table ${table.id}: has no name`);
  }
  return { faults: [...new Set(faults)], texts };
}
