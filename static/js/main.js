// Begins everything: each module adds one convenience to pages that work without any of them.

import { startTimes } from "./times.js";
import { startDialogs } from "./dialogs.js";
import { startSelection } from "./selection.js";
import { startKeys } from "./keys.js";
import { startPalette } from "./palette.js";
import { startSavedViews } from "./saved_views.js";
import { startCopy } from "./copy.js";
import { startNews } from "./news.js";
import { startLive } from "./live.js";

startTimes();
startDialogs();
startSelection();
startPalette();
startSavedViews();
startCopy();
startNews();
const live = startLive();
startKeys({ togglePause: live.togglePause });
