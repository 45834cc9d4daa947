// The page's policy asks for Trusted Types: a worker's script may only come from this origin.
window.trustedTypes?.createPolicy('default', {
  createScriptURL(address) {
    if (new URL(address, document.baseURI).origin !== location.origin) throw new TypeError(`Not a script of this page: ${address}`);
    return address;
  },
  createHTML(text, type, sink) { // the library reads the size of SVG drawings; nothing is ever put into the page as markup
    if (sink !== 'DOMParser parseFromString') throw new TypeError('Markup is not put into this page.');
    return text;
  },
});
