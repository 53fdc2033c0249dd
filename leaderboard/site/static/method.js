"use strict";
// The page of a method: its learning curves.

const curvesBox = document.getElementById("curves");
if (curvesBox) addCurves(curvesBox, window.boardData[`method/${curvesBox.dataset.method}`].curves);
