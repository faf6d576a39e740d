"""The pushed model of a run over HTTP: TensorFlow Serving's REST form, and a page to try it on.

`rest` answers requests, `tensors` reads and writes their JSON, `watching` keeps the newest version loaded, `batching`
lets requests share a call of the model, `playground` is the page, and `server` puts them on a port.
"""
