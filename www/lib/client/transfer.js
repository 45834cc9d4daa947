// What a drop or a paste holds.

/** Whether a drag may hold pictures. @param {DataTransfer | null} data */
export function mayHoldPictures(data) {
  return [...(data?.types ?? [])].some((type) => type === "Files" || type === "text/uri-list");
}

/** The files that look like pictures, or all of them if none does: some systems tell no type. @param {Iterable<File>} files @returns {File[]} */
export function picturesAmong(files) {
  const all = [...files];
  const pictures = all.filter(({ type }) => type.startsWith("image/"));
  return pictures.length > 0 ? pictures : all;
}

/** The address of a picture that was dragged from a page. @param {DataTransfer | null} data */
export function addressIn(data) {
  return data?.getData("text/uri-list").split(/\r?\n/).find((line) => line && !line.startsWith("#"));
}
