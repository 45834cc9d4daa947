// A classic script: the only kind that runs where a page was opened as a file, from which modules can't be loaded. So its texts are here.
if (location.protocol === 'file:') {
  const german = navigator.language.startsWith('de');
  if (german) document.documentElement.lang = 'de';
  document.getElementById('answer')?.setAttribute('data-state', 'error');
  document.getElementById('status')?.replaceChildren(german
    ? 'Diese Seite wurde als Datei geöffnet, und Dateien dürfen im Browser keine Programme laden. Sie braucht einen Webserver, auch auf dem eigenen Computer: '
      + 'im Ordner, aus dem sie kommt, ./build.sh serve eingeben, oder im Ordner dieser Datei python3 -m http.server, und die Adresse öffnen, die dann dasteht.'
    : 'This page was opened as a file, and browsers let files load no programs. It needs a web server, also on your own computer: '
      + 'in the folder that it came from type ./build.sh serve, or in the folder of this file python3 -m http.server, and open the address that is printed.');
}
