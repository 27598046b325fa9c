"use strict";
/* The page is complete without this script: videos then have the browser's own controls.
   With it, both sides of a pair play in step and a playhead runs over the time axis below them. */
document.documentElement.classList.remove("no-script");

const calm = matchMedia("(prefers-reduced-motion: reduce)");

/* Browsers seek poorly in data addresses, some refuse to play them: hand the bytes over as a blob instead. */
function adopt(video) {
  const source = video.getAttribute("src");
  if (!source || !source.startsWith("data:")) return;
  const text = atob(source.slice(source.indexOf(",") + 1));
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  video.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
  video.preload = "auto";
  video.load();
}

function setUp(pair) {
  const videos = [...pair.querySelectorAll("video")];
  const frames = Number(pair.dataset.frames);
  const fps = Number(pair.dataset.fps);
  const length = frames / fps;
  const play = pair.querySelector(".play");
  const speed = pair.querySelector(".speed");
  const slider = pair.querySelector("input[type=range]");
  const output = pair.querySelector("output");
  const results = [...pair.querySelectorAll(".result")];
  const lead = videos[0];
  let wanted = false;   // the reader (or the page, on scrolling here) wants it to play
  let stopped = false;  // the reader pressed pause: scrolling must not start it again
  let visible = false;
  let time = 0;
  let last = 0;

  function draw() {
    const state = Math.min(frames - 1, Math.floor(time * fps + 1e-6));
    pair.style.setProperty("--t", (time / length).toFixed(4));
    slider.value = state;
    slider.setAttribute("aria-valuetext", `step ${state} of ${frames - 1}`);
    output.textContent = `${state} / ${frames - 1}`;
    for (const result of results) result.classList.toggle("on", state >= Number(result.dataset.at));
  }

  function show() {
    play.textContent = wanted ? "❚❚ Pause" : "▶ Play both";
    play.setAttribute("aria-pressed", String(wanted));
  }

  function seek(target) {
    time = Math.max(0, Math.min(length - 0.5 / fps, target));
    for (const video of videos) if (video.readyState > 0) video.currentTime = time + 0.02 / fps;
    draw();
  }

  function tick(now) {
    if (!wanted || !visible) return;
    if (lead && lead.readyState > 1) {
      time = Math.min(length, lead.currentTime);
      for (const video of videos.slice(1)) {
        const drift = Math.abs(video.currentTime - time);
        if (video.readyState > 1 && Math.min(drift, length - drift) > 0.12) video.currentTime = time;
      }
    } else if (!lead) {
      time = (time + ((now - last) / 1000) * Number(speed.dataset.rate)) % length;
    }
    last = now;
    draw();
    requestAnimationFrame(tick);
  }

  function run() {
    const go = wanted && visible;
    for (const video of videos) {
      video.playbackRate = Number(speed.dataset.rate);
      if (go) video.play().catch(() => {}); else video.pause();
    }
    if (go) { last = performance.now(); requestAnimationFrame(tick); }
    show();
  }

  for (const video of videos) {
    video.controls = false;
    video.addEventListener("loadedmetadata", () => { if (time > 0) video.currentTime = time; });
    video.addEventListener("click", () => play.click());
  }
  play.addEventListener("click", () => { wanted = !wanted; stopped = !wanted; visible = true; run(); });
  speed.addEventListener("click", () => {
    const rates = [1, 0.5, 0.25, 2];
    const rate = rates[(rates.indexOf(Number(speed.dataset.rate)) + 1) % rates.length];
    speed.dataset.rate = rate;
    speed.textContent = `${rate}×`;
    run();
  });
  slider.addEventListener("input", () => {
    wanted = false;
    stopped = true;
    run();
    seek(Number(slider.value) / fps);
  });
  for (const track of pair.querySelectorAll(".track")) {
    const follow = (event) => {
      const box = track.getBoundingClientRect();
      seek(((event.clientX - box.left) / box.width) * length);
    };
    track.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button !== 0) return;
      follow(event);
      if (event.pointerType === "mouse") track.setPointerCapture(event.pointerId);
    });
    track.addEventListener("pointermove", (event) => { if (track.hasPointerCapture(event.pointerId)) follow(event); });
  }

  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) videos.forEach(adopt);
  }, { rootMargin: "600px" }).observe(pair);
  new IntersectionObserver((entries) => {
    visible = entries[entries.length - 1].isIntersecting;
    if (visible && !stopped && !calm.matches) wanted = true;
    run();
  }, { threshold: 0.35 }).observe(pair.querySelector(".screen") || pair);
  draw();
  show();
}

document.querySelectorAll(".pair").forEach(setUp);

const filters = [...document.querySelectorAll(".filters button")];
for (const button of filters) {
  button.addEventListener("click", () => {
    for (const other of filters) other.setAttribute("aria-pressed", String(other === button));
    for (const pair of document.querySelectorAll(".pair")) {
      pair.hidden = button.dataset.task !== "" && pair.dataset.task !== button.dataset.task;
    }
  });
}

addEventListener("beforeprint", () => document.querySelectorAll("details:not(.plain)").forEach((item) => { item.open = true; }));
