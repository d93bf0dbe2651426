"""Plugin for `buf generate` that makes Python's service stubs with the generator inside grpcio-tools.

grpcio-tools has protoc and gRPC's generator in one module, and no plugin of its own that buf could run.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def main() -> None:
    """Answer the request on standard input with the generated files."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    # Editions are not used in proto/; the flag says that proto3 `optional` is known.
    answer = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        descriptors = folder / "descriptors.binpb"
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        output = folder / "output"
        output.mkdir()
        arguments = ["protoc", f"--descriptor_set_in={descriptors}", f"--grpc_python_out={output}"]
        if protoc.main([*arguments, *request.file_to_generate]) != 0:
            answer.error = "grpcio-tools refused the files, see above"
        for path in sorted(output.rglob("*.py")):
            answer.file.add(name=path.relative_to(output).as_posix(), content=path.read_text(encoding="utf-8"))
    sys.stdout.buffer.write(answer.SerializeToString())


if __name__ == "__main__":
    main()
