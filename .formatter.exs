[
  inputs: [
    "{mix,.formatter}.exs",
    "native/compile.exs",
    "{config,lib,test,bench,examples}/**/*.{ex,exs}"
  ]
]
