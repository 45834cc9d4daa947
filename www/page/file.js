// A classic script: the only kind that runs where a page was opened as a file, from which modules can't be loaded.
if (location.protocol === 'file:') {
  document.getElementById('answer')?.setAttribute('data-state', 'error');
  document.getElementById('status')?.replaceChildren('This page was opened as a file, and browsers let files load no programs. It needs a web server, also on your own computer: '
    + 'in the folder that it came from type ./build.sh serve, or in the folder of this file python3 -m http.server, and open the address that is printed.');
}
