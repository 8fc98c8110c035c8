defmodule Tube.Tools.CyclesTest do
  # The gate `cycles`: which dependencies it sees, and that it finds a cycle.
  use ExUnit.Case, async: true

  alias Tube.Test.Cycles
  alias Tube.Test.Cycles.{Rust, RustCode, RustTokens}

  defp file(text), do: text |> RustTokens.read() |> RustCode.read() |> Map.new()

  # A crate of these files, and which sibling uses which: {place, from, to}.
  defp crate(files) do
    root = Path.join(System.tmp_dir!(), "tube-cycles-#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(root) end)

    for {name, text} <- files do
      path = Path.join(root, name)
      File.mkdir_p!(Path.dirname(path))
      File.write!(path, text)
    end

    for {place, edges} <- Rust.graphs(Path.join(root, "lib.rs")),
        {{from, to}, _text} <- edges,
        do: {Path.relative_to(place, root), from, to}
  end

  describe "one file" do
    test "groups, renames and globs of use are unfolded" do
      %{[] => file} =
        file("""
        use crate::{a::{self, B, c::{D as E, *}}, f::G};
        pub(crate) use super::h::I;
        use std::fmt::Write as _;
        use ::j::K;
        """)

      assert file.imports == %{
               "a" => ~w(crate a),
               "B" => ~w(crate a B),
               "E" => ~w(crate a c D),
               "G" => ~w(crate f G),
               "I" => ~w(super h I),
               "std::fmt::Write" => ~w(std fmt Write),
               "K" => ~w(j K)
             }

      assert file.globs == [~w(crate a c)]
    end

    test "paths are found everywhere but in comments and literals" do
      %{[] => file} =
        file(~S'''
        // crate::no::No
        /* crate::no /* crate::no::No */ crate::no::No */
        fn f<'a>(x: &'a crate::a::A) -> b'"' {
            let s = "crate::no::No \" crate::no::No";
            let r = r#"crate::no::"No"#;
            let c = ('"', '\'', '\u{22}');
            x.call::<crate::b::B>(1_u8);
            super::c::d(0x1f)
        }
        ''')

      assert Enum.sort(file.paths) == [~w(crate a A), ~w(crate b B), ~w(super c d)]
      assert "f" in file.defines
    end

    test "code for tests is left out, and nothing else" do
      files =
        file("""
        #[cfg(test)]
        use crate::no::A;
        #[cfg(test)]
        #[allow(unused)]
        mod tests { use super::*; fn f() { crate::no::B; } }
        #[cfg(all(test, not(loom)))]
        pub(crate) fn no<A, B>(x: [A; 2], y: B) { crate::no::C; }
        #[cfg(test)]
        mod elsewhere;
        struct S { #[cfg(test)] x: crate::no::D, y: crate::a::A }
        #[cfg(not(test))]
        fn yes() { crate::b::B; }
        mod c;
        mod inline { use super::d::D; mod e; }
        """)

      assert Map.keys(files) == [[], ["inline"]]
      assert Enum.sort(files[[]].paths) == [~w(crate a A), ~w(crate b B)]
      assert files[[]].imports == %{}
      assert files[[]].files == ["c"]
      assert files[["inline"]].imports == %{"D" => ~w(super d D)}
      assert files[["inline"]].files == ["e"]
      assert file("#![cfg(test)]\nuse crate::a::A;")[[]].imports == %{}
    end
  end

  describe "a crate" do
    test "what the parent defines is no dependency on a sibling; what it re-exports is" do
      edges =
        crate([
          {"lib.rs", "mod a; mod b; mod c; pub use b::{B, B as Other}; pub struct Own;"},
          {"a.rs", "use super::Own; use crate::B; use std::fmt;"},
          {"b.rs", "use crate::Own; pub struct B;"},
          {"c.rs", "fn f() { crate::Other::new(); }"}
        ])

      assert Enum.sort(edges) == [{".", "a", "b"}, {".", "c", "b"}]
    end

    test "a module counts with all its submodules, and its children have a graph of their own" do
      edges =
        crate([
          {"lib.rs", "mod a; mod b;"},
          {"a/mod.rs", "mod x; mod y; pub use self::x::X; fn f() { y::g(); }"},
          {"a/x.rs", "use super::y; pub struct X; fn f() { y::g(); super::super::b::h(); }"},
          {"a/y.rs", "pub fn g() {}"},
          {"b.rs", "pub fn h() {}"}
        ])

      assert Enum.sort(edges) == [{".", "a", "b"}, {"a", "x", "y"}]
    end

    test "re-exports are followed over several modules, and through globs" do
      edges =
        crate([
          {"lib.rs",
           "mod a; mod b; mod c; mod d; pub use a::*; mod inner { pub use crate::b::B; }"},
          {"a.rs", "pub use crate::b::B; pub struct A;"},
          {"b.rs", "pub struct B;"},
          {"c.rs", "use crate::{A, inner::B};"},
          {"d.rs", "use crate::*; fn f(b: B) {}"}
        ])

      assert Enum.sort(edges) == [
               {".", "a", "b"},
               {".", "c", "a"},
               {".", "c", "b"},
               {".", "d", "b"},
               {".", "inner", "b"}
             ]
    end

    test "modules for tests are not read" do
      assert crate([
               {"lib.rs", "mod a; mod b; #[cfg(test)] mod tests;"},
               {"a.rs", "#[cfg(test)] mod tests { use crate::b::B; }"},
               {"b.rs", "pub struct B;"}
             ]) == []
    end
  end

  test "what mix xref prints becomes edges of every kind, within a folder" do
    tree = """
    lib/a.ex
    |-- lib/b.ex (compile)
    |-- lib/c.ex (export)
    `-- test/support/d.ex
    lib/b.ex
    `-- lib/a.ex
    test/support/d.ex
    `-- lib/a.ex
    """

    assert tree |> Cycles.xref("lib/") |> Map.keys() ==
             [{"lib/a.ex", "lib/b.ex"}, {"lib/a.ex", "lib/c.ex"}, {"lib/b.ex", "lib/a.ex"}]
  end

  describe "the list" do
    defp graph(edges), do: Map.new(edges, &{&1, "#{elem(&1, 0)} uses #{elem(&1, 1)}"})

    test "a component counts once, whatever its inner ways" do
      edges = for from <- ~w(a b c), to <- ~w(a b c d), from != to, do: {from, to}
      assert Cycles.components(graph(edges)) == [~w(a b c)]
      assert Cycles.components(graph([{"a", "b"}, {"b", "c"}, {"a", "c"}])) == []
    end

    test "a cycle that is not listed is found, and so is one that is gone or has changed" do
      two = graph([{"a", "b"}, {"b", "a"}, {"b", "c"}])
      three = graph([{"a", "b"}, {"b", "c"}, {"c", "a"}])
      listed = [{"lib", ["b", "a"], "a reason"}]

      assert Cycles.compare([{"lib", two}], listed) == []
      assert [new] = Cycles.compare([{"lib", two}], [])
      assert new =~ ~s|{"lib", ~w(a b), "..."}| and new =~ "  a uses b\n  b uses a"
      assert [gone] = Cycles.compare([{"lib", %{}}], listed)
      assert gone =~ "gone"
      assert [new, gone] = Cycles.compare([{"lib", three}], listed)
      assert new =~ "~w(a b c)" and gone =~ "~w(a b)"
      # The same names elsewhere are another cycle.
      assert [_new, _gone] = Cycles.compare([{"native/x/src", two}], listed)
    end
  end
end
