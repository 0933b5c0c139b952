// Tells screen readers what matters, in one sentence and at most every ten seconds; never the feed itself.

const LEAST_MS = 10_000;

const news = document.getElementById("news");
let known = number();
let last = 0;
let timer = 0;

function number() {
  return Number(document.querySelector(".badge")?.textContent.replace(/\D/g, "") ?? 0);
}

function announce() {
  timer = 0;
  const now = number();
  if (now > known) news.textContent = now - known === 1 ? "1 new dead letter" : `${now - known} new dead letters`;
  if (now !== known) last = Date.now();
  known = now;
}

export function startNews() {
  document.addEventListener("swapped", () => {
    if (!timer && number() !== known) timer = setTimeout(announce, Math.max(0, last + LEAST_MS - Date.now()));
  });
}
