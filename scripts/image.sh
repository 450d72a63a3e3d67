# shellcheck shell=bash
# Builds the container image from the Dockerfile and tries it. Sourced by ./dev. See docs/deployment.md.
: "${root:?the folder of the clone}"

# Debian's release of both stages, where the base image is made here.
image_release=bookworm
image_base=localhost/txconnect-base:$image_release
image_builder_base=localhost/txconnect-builder-base:$image_release
# Where the toolchain and the certificate authorities of this machine are mounted then.
image_toolchain=/usr/local/rust
image_authorities=/usr/local/share/authorities.crt
# A registry that has not given the small base image by then is out of reach.
image_pull_seconds=120

# Builds with the first of docker, podman and buildah that works. IMAGE_TOOL chooses one.
image() { # [TAG]
  local tag=${1:-txconnect:latest} tool revision base arguments=()
  (($# <= 1)) || die "usage: ./dev image [TAG]"
  tool=$(image_tool)
  revision=$(git rev-parse --short=12 HEAD 2>/dev/null) || revision=unknown
  arguments+=(--build-arg "TXCONNECT_REVISION=$revision")
  for base in BUILDER_IMAGE RUNTIME_IMAGE; do
    [[ -z ${!base:-} ]] || arguments+=(--build-arg "$base=${!base}")
  done
  say "building $tag with $tool"
  case $tool in
    docker) DOCKER_BUILDKIT=1 docker build "${arguments[@]}" --tag "$tag" . ;;
    podman) podman build --format docker "${arguments[@]}" --tag "$tag" . ;;
    buildah)
      require "buildah:has_command buildah:buildah"
      image_bases
      buildah bud --isolation chroot --format docker --layers "${arguments[@]}" --tag "$tag" .
      ;;
    *) die "IMAGE_TOOL is '$tool'; it may be docker, podman or buildah" ;;
  esac
  image_try "$tool" "$tag"
}

# A client without its engine is of no use.
image_tool() {
  if [[ -n ${IMAGE_TOOL:-} ]]; then
    printf '%s' "$IMAGE_TOOL"
  elif has_command docker && timeout 20 docker info >/dev/null 2>&1; then
    printf docker
  elif has_command podman && timeout 20 podman info >/dev/null 2>&1; then
    printf podman
  else
    printf buildah
  fi
}

# Without a registry the base images are made here: Debian by debootstrap, and for the builder this machine's own Rust,
# mounted while it compiles. The libraries come from Debian in both stages, as they do from the official images. Adds to
# the `arguments` of its caller.
image_bases() {
  local sysroot
  [[ -z ${BUILDER_IMAGE:-} && -z ${RUNTIME_IMAGE:-} ]] || return 0
  if timeout "$image_pull_seconds" buildah pull --quiet "docker.io/library/debian:$image_release-slim" >/dev/null 2>&1; then
    return
  fi
  say "no registry gives debian:$image_release-slim: making the base images here, with debootstrap"
  [[ $(id -u) = 0 ]] || die "debootstrap needs root; or set BUILDER_IMAGE and RUNTIME_IMAGE to images that are there"
  require_rust
  require "debootstrap:has_command debootstrap:debootstrap" "ca-certificates:has_certificates:the usual certificate authorities"
  sysroot=$(rustc --print sysroot)
  [[ -x $sysroot/bin/cargo && $sysroot != /usr ]] ||
    die "the Rust in $sysroot cannot be lent to a container; install it with rustup, or set BUILDER_IMAGE"
  image_exists "$image_base" || image_make_base
  image_exists "$image_builder_base" || image_make_builder_base
  arguments+=(
    --build-arg "BUILDER_IMAGE=$image_builder_base" --build-arg "RUNTIME_IMAGE=$image_base"
    --volume "$sysroot:$image_toolchain:ro"
    --volume "/etc/ssl/certs/ca-certificates.crt:$image_authorities:ro"
  )
}

image_exists() { buildah inspect --type image "$1" >/dev/null 2>&1; }

image_make_base() {
  local folder container mirror=http://deb.debian.org/debian
  folder=$(mktemp -d /var/tmp/txconnect-base-XXXXXXXX)
  debootstrap --variant=minbase "$image_release" "$folder" "$mirror" >"$folder.log" 2>&1 || {
    tail -n 20 "$folder.log" >&2
    rm -rf "$folder" "$folder.log"
    die "debootstrap could not make Debian $image_release; is $mirror within reach?"
  }
  printf '%s\n' "deb $mirror $image_release main" "deb $mirror $image_release-updates main" \
    "deb http://deb.debian.org/debian-security $image_release-security main" >"$folder/etc/apt/sources.list"
  # What the official slim image leaves out as well.
  rm -rf "$folder"/var/lib/apt/lists/* "$folder"/var/cache/apt/*.bin "$folder"/var/cache/apt/archives/*.deb \
    "$folder"/usr/share/doc/* "$folder"/usr/share/man/* "$folder"/usr/share/locale/* "$folder"/usr/share/info/*
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$folder" / >/dev/null
  buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd bash "$container"
  buildah commit --quiet --rm "$container" "$image_base" >/dev/null
  rm -rf "$folder" "$folder.log"
}

image_make_builder_base() {
  local container
  container=$(buildah from "$image_base")
  buildah config --env "PATH=$image_toolchain/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    --env CARGO_HOME=/usr/local/cargo --env "CARGO_HTTP_CAINFO=$image_authorities" "$container"
  buildah commit --quiet --rm "$container" "$image_builder_base" >/dev/null
}

# The image must start, must not be root, must find its libraries, and must know files that are mounted into it.
image_try() { # TOOL TAG
  local said
  said=$(image_run "$1" "$2" id -u)
  [[ $said = 10001 ]] || die "the image runs as user '$said', not as 10001"
  said=$(image_run "$1" "$2" txconnect --version) || die "the program does not start in the image"
  say "$said, as user 10001"
  image_run "$1" "$2" txconnect check pipelines/transactions-stdout.yaml >/dev/null ||
    die "the program in the image does not know pipelines/transactions-stdout.yaml"
  if image_run "$1" "$2" txconnect-health 2>/dev/null; then
    die "the health check finds a broker where there is none"
  fi
  say "$2: $(image_megabytes "$1" "$2") MB; try it: docker run --rm $2 --help"
}

# Runs COMMAND in a new container, with the pipelines and schemas of this clone.
image_run() { # TOOL TAG COMMAND...
  local tool=$1 tag=$2 container status=0
  shift 2
  if [[ $tool = buildah ]]; then
    container=$(buildah from "$tag")
    buildah run --isolation chroot --volume "$root/pipelines:/etc/txconnect/pipelines:ro" \
      --volume "$root/schemas:/etc/txconnect/schemas:ro" "$container" -- "$@" || status=$?
    buildah rm "$container" >/dev/null
    return "$status"
  fi
  "$tool" run --rm --network none --volume "$root/pipelines:/etc/txconnect/pipelines:ro" \
    --volume "$root/schemas:/etc/txconnect/schemas:ro" --entrypoint "$1" "$tag" "${@:2}"
}

image_megabytes() { # TOOL TAG
  local bytes container folder
  if [[ $1 = buildah ]]; then
    container=$(buildah from "$2")
    folder=$(buildah mount "$container")
    bytes=$(du --summarize --bytes --one-file-system "$folder" | cut -f 1)
    buildah umount "$container" >/dev/null
    buildah rm "$container" >/dev/null
  else
    bytes=$("$1" image inspect --format '{{.Size}}' "$2")
  fi
  printf '%s' "$((bytes / 1000000))"
}
