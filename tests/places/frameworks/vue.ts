import { createApp } from "vue";
import "siglip-web/demo";
import "siglip-web/siglip-classifier";
import type {} from "siglip-web/types/vue";
import App from "./App.vue";

createApp(App).mount("#app");
