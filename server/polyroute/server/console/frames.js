// Work that is done once a frame, however often it is asked for.

const HIDDEN_MS = 250; // a page that is not seen has no frames

/** A function that runs `work` at the next frame, once for all times that it was called until then. */
export function oncePerFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    const go = () => {
      if (!asked) return;
      asked = false;
      work();
    };
    if (document.hidden) setTimeout(go, HIDDEN_MS);
    else requestAnimationFrame(go);
  };
}
