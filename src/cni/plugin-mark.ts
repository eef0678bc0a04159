/**
 * Is in every build of the plugin, so that an installer can tell an older one of ours from flannel's or anybody's: who
 * starts the plugin by hand sees it too.
 */
export const PLUGIN_MARK = 'made by weft, plugin flannel';
