mountTheme();
const charts = embedded("chart-data");
const rows = embedded("row-data");
const review = rows && makeReview(rows, charts.key);
if (charts.epochs.length) {
  mountLines(charts);
  mountHistogram(charts);
  mountRouting(charts, rows?.labels);
}
if (rows) mountConfusion(charts.confusion, rows.labels, review.showPair);
