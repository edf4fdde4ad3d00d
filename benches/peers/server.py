"""What people write to have a model answer on a socket: FastAPI, uvicorn, onnxruntime.

    python server.py MODEL.onnx SOCKET

One thread computes: with more, onnxruntime's threads spin, and on a small machine they take the
processor from the server. uvicorn runs with uvloop and httptools, its fastest, and logs nothing.
"""

import sys

import fastapi
import numpy as np
import onnxruntime
import pydantic
import uvicorn

TYPES = {"INT64": np.int64, "FP32": np.float32}

app = fastapi.FastAPI()


class Input(pydantic.BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(pydantic.BaseModel):
    inputs: list[Input]


@app.get("/ready")
async def ready():
    return {"ready": True}


@app.post("/infer")
async def infer(request: Request):
    feeds = {
        one.name: np.array(one.data, TYPES[one.datatype]).reshape(one.shape)
        for one in request.inputs
    }
    outputs = session.run(None, feeds)
    return {
        "outputs": [
            {"name": name, "shape": list(values.shape), "data": values.ravel().tolist()}
            for name, values in zip(names, outputs)
        ]
    }


if __name__ == "__main__":
    model, socket = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    uvicorn.run(app, uds=socket, log_level="error", access_log=False)
