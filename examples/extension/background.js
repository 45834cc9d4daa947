// A service worker can't hold a model; a page can. It opens with a click on the extension's button.
chrome.action.onClicked.addListener(() => chrome.tabs.create({ url: "page.html" }));
