"""The web console: plain HTML, CSS and ES modules that a browser runs as they are; `gateway/rest/console.py` serves them.

No build step, nothing from elsewhere: the page works on a machine without internet, and the strictest content security
policy holds because no script or style is inline and no string is ever parsed as markup (`dom.js`). Begin reading at
`app.js`, which knows the pages; each page in `pages/` is one function that fills the main part of the window.
"""
