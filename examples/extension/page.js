import "./siglip-web/siglip-classifier.js";

const tag = document.querySelector("siglip-classifier");
const labels = document.querySelector("#labels");
const show = () => { tag.labels = labels.value; };
labels.addEventListener("input", show);
show();

// A model of your own: put its folder beside this file, and give its address.
// tag.model = "./my-model/";
