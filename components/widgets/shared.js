// What every widget shares; base.py puts it in front of widget.js.

const counters = ((window.__dp ??= {})[props.counted_as] = { loads: 0, draws: 0, dropped: 0 });

const find = selector => element.querySelector(selector);

/** A new element. Children that are strings become text nodes, so text is never parsed as markup. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Where a file is. A saved page has all of them in itself, and those that it has not are nowhere. */
const located = url => (window.__dpFiles ? window.__dpFiles[url] ?? 'data:,' : url);

/** Loads and decodes a picture away from the page. Rejects when it cannot, or when `signal` aborts it. */
async function decode(url, signal) {
  counters.loads += 1;
  const picture = new Image();
  picture.draggable = false;
  picture.src = located(url);
  const givenUp = new Promise((_, reject) => signal?.addEventListener('abort', () => {
    picture.src = ''; // the browser gives the request up, but decode() may then never settle
    reject(signal.reason);
  }));
  await Promise.race([picture.decode(), givenUp]);
  return picture;
}

/** Pixels are shown as pixels only where smoothing would hide that the picture is small. */
function sharpen(node, shownWidth, ownWidth) {
  node.style.imageRendering = shownWidth > 4 * ownWidth ? 'pixelated' : 'auto';
}

/**
 * A place for one picture. The old one stays until the next is decoded, so nothing flickers. While two are
 * on their way only the newest request waits for its turn, so a fast drag neither floods the server nor
 * starves the view; a picture that arrives after a newer one is dropped.
 */
function pictureSlot(holder) {
  let wanted = { url: null };
  let pending = false; // is `wanted` still waiting for its turn?
  let onTheWay = 0;
  let started = 0; // loads are numbered in the order they start ...
  let shown = 0; // ... and this is the newest one that has been shown

  async function pump() {
    if (!pending || onTheWay === 2) return;
    const request = wanted;
    const turn = ++started;
    pending = false;
    onTheWay += 1;
    try {
      const picture = await decode(request.url);
      if (turn < shown) counters.dropped += 1;
      else reveal(picture, request, turn);
    } catch {
      if (request === wanted) {
        wanted = { url: null }; // so that asking again tries again
        holder.replaceChildren(make('span', { class: 'missing' }, 'Picture not available'));
      }
    }
    onTheWay -= 1;
    pump();
  }

  function reveal(picture, request, turn) {
    shown = turn;
    request.visible = true;
    picture.alt = request.alt;
    sharpen(picture, holder.clientWidth, picture.naturalWidth);
    holder.replaceChildren(picture);
    counters.draws += 1;
    request.then();
  }

  return {
    /** Shows the picture at `url` (none when null); `then` runs when it has appeared. */
    show(url, alt = '', then = () => {}) {
      if (url && url === wanted.url) {
        Object.assign(wanted, { alt, then });
        if (wanted.visible) then();
        return;
      }
      wanted = { url, alt, then };
      pending = Boolean(url);
      if (url) {
        pump();
      } else {
        shown = ++started; // whatever is still on its way is older than this emptiness
        holder.replaceChildren();
      }
    },
  };
}

const LARGEST = 20 * 2 ** 20; // bytes of a file

/** A visitor's file in base64, for `then`; what is wrong with it is said. */
function readFile(file, say, then) {
  if (!file) return;
  if (file.size > LARGEST) {
    say('This file has ' + Math.round(file.size / 2 ** 20) + ' MB; 20 are the most that is taken here.');
    return;
  }
  say('');
  const reader = new FileReader();
  reader.onload = () => then(reader.result.slice(reader.result.indexOf(',') + 1));
  reader.onerror = () => say('The browser could not read this file.');
  reader.readAsDataURL(file);
}
