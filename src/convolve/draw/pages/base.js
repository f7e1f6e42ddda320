"use strict";
// What every page shares, under one name. `convolve.data` is the page's data, read once from its JSON element.
const convolve = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

  // An element: el("button", {class: "primary", "aria-pressed": false, onclick: f}, "text" or elements or arrays of them).
  const make = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "style" && typeof value === "object") Object.entries(value).forEach(([k, v]) => node.style.setProperty(k, v));
      else if (value !== null && value !== undefined && value !== false || name.startsWith("aria-")) node.setAttribute(name, value === true && !name.startsWith("aria-") ? "" : value);
    }
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return node;
  };
  const el = (tag, attributes, ...children) => make(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => make(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  // A number as the page writes it: integers whole, others with three significant digits, a true minus sign.
  const format = (value) => {
    const number = Number(value);
    if (Number.isNaN(number)) return "NaN";
    if (!Number.isFinite(number)) return number > 0 ? "∞" : "−∞";
    const size = Math.abs(number);
    const text = Number.isInteger(number) && size < 1e6 ? String(size) : size >= 1e5 || size < 1e-3 ? size.toExponential(2) : String(Number(size.toPrecision(3)));
    return (number < 0 ? "−" : "") + text;
  };

  // Copy text; a button says that it did. The second way serves pages and frames without the clipboard's permission.
  const copy = async (text, button) => {
    let done = true;
    try { await navigator.clipboard.writeText(text); }
    catch {
      const area = el("textarea", { style: { position: "fixed", opacity: "0" } });
      area.value = text;
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    if (button) {
      const before = button.dataset.label || (button.dataset.label = button.textContent);
      button.textContent = done ? "Copied" : "Select the text and copy it";
      setTimeout(() => { button.textContent = before; }, 1600);
    }
    return done;
  };

  // Storage is refused in some frames (notebooks): the choice then lasts as long as the page.
  const stored = (name, value) => {
    try { return value === undefined ? localStorage.getItem(name) : localStorage.setItem(name, value); } catch { return null; }
  };
  // Colours a canvas needs: convolve.colour("input"). Listen to "themechange" on document to draw again.
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const root = document.documentElement, menu = $("#theme");
  const setTheme = (name) => {
    if (name === "auto") root.removeAttribute("data-theme"); else root.setAttribute("data-theme", name);
    menu.value = name;
    document.dispatchEvent(new Event("themechange"));
  };
  menu.addEventListener("change", () => { stored("convolve-theme", menu.value); setTheme(menu.value); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("themechange")));
  const wished = stored("convolve-theme");
  if (menu.value === "auto" && wished && [...menu.options].some((option) => option.value === wished)) setTheme(wished);

  return { data, $, $$, el, svg, format, copy, colour, setTheme };
})();
