"use strict";
// Runs before the page is drawn, so that a remembered theme does not flash. Pages opened as files may have no storage.

const THEME_KEY = "oc-residual-gym-theme";

function rememberedTheme() {
  try {
    return localStorage.getItem(THEME_KEY);
  } catch {
    return null;
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(THEME_KEY, theme);
  } catch {
    // Then the choice holds for this page only.
  }
}

if (["light", "dark"].includes(rememberedTheme())) document.documentElement.dataset.theme = rememberedTheme();
document.documentElement.classList.add("scripted");

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const update = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    setTheme(isDark() ? "light" : "dark");
    update();
  });
  system.addEventListener("change", update);
  button.hidden = false;
  update();
});
